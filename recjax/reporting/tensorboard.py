"""The parts of tensorboardX that are used, imported without torch."""

import sys

# tensorboardX imports torch if it is installed, which takes seconds and is not needed.
_hidden = sys.modules.setdefault("torch", None) is None  # type: ignore[arg-type]
from tensorboardX.event_file_writer import EventsWriter  # noqa: E402
from tensorboardX.proto.event_pb2 import Event  # noqa: E402
from tensorboardX.proto.summary_pb2 import Summary  # noqa: E402
from tensorboardX.record_writer import masked_crc32c  # noqa: E402
from tensorboardX.summary import hparams as make_hparams  # noqa: E402
from tensorboardX.summary import text as make_text  # noqa: E402

if _hidden:
    del sys.modules["torch"]

__all__ = [
    "Event",
    "EventsWriter",
    "Summary",
    "make_hparams",
    "make_text",
    "masked_crc32c",
]
