"""What TensorBoard shows of a sweep: its columns, the keys that differ first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recjax.reporting.writer import Event, EventsWriter, make_hparams

EVENTS, OWN = "events", ".sweep"  # what our event files' names begin and end with


def write_columns(
    out: Path, configs: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> None:
    """The columns of the hparams tab of `tensorboard --logdir OUT`.

    Without, it would have one for every key of the config.

    Args:
      out: of the sweep, whose runs are below.
      configs: of the points, by flat key.
      metrics: scalars of the runs, whose newest values are shown.
    """
    for old in out.glob(f"{EVENTS}.out.tfevents.*{OWN}"):
        old.unlink()
    every = {key: value for config in configs for key, value in config.items()}
    simple = {
        key: value if isinstance(value, bool | int | float) else ""
        for key, value in every.items()
        if key == "seed" or any(c.get(key) != value for c in configs)
    }
    columns, _, _ = make_hparams(simple, dict.fromkeys(metrics))
    writer = EventsWriter(str(out / EVENTS), OWN)
    writer.write_event(Event(summary=columns))
    writer.close()
