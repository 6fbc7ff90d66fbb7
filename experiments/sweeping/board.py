"""Chooses the columns of TensorBoard's table of a sweep: the keys that differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recjax.reporting.writer import Event, EventsWriter, make_hparams

EVENTS = "events"
SUFFIX = ".sweep"  # marks the event files that this module wrote


def write_columns(
    out: Path, configs: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> None:
    """Writes the columns of the hparams tab of `tensorboard --logdir OUT`.

    Without them the tab has one column for every key of the config.

    Args:
      out: directory of the sweep.
      configs: flat configs of the variants.
      metrics: names of the scalars whose newest values are shown.
    """
    for old in out.glob(f"{EVENTS}.out.tfevents.*{SUFFIX}"):
        old.unlink()
    union = {key: value for config in configs for key, value in config.items()}
    simple = {"run": ""} | {
        key: value if isinstance(value, bool | int | float) else ""
        for key, value in union.items()
        if key == "seed" or any(config.get(key) != value for config in configs)
    }
    columns, _, _ = make_hparams(simple, dict.fromkeys(metrics))
    writer = EventsWriter(str(out / EVENTS), SUFFIX)
    writer.write_event(Event(summary=columns))
    writer.close()
