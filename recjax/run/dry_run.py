"""A run as it would be: everything is checked and nothing is trained or written."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.common.errors import UserError
from recjax.config.validate import check_config
from recjax.run.setup import open_run, trained_phases
from recjax.run.workdir import check_same_config
from recjax.training.context import Run
from recjax.training.phase import Phase, make_phase
from recjax.training.train_step import TrainState


def dry_run(config: Any, workdir: str) -> None:
    """Reads and checks the data and the weights, and says what every phase would take.

    Args:
      config: a locked config as `configs/base.py` declares it.
      workdir: where the run would write; its disk is looked at.

    Raises:
      UserError: anything that would stop the run before its first step.
    """
    check_config(config)
    check_same_config(config, Path(workdir))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with open_run(config, Path(folder), began, Path(workdir)) as (r, params):
            for index, each in enumerate(trained_phases(config)):
                phase, state = make_phase(r, index, each, params, 0)
                r.reporter.log(describe(r, phase, state))
            r.reporter.log("dry run: all fits; nothing was trained or written")


def describe(r: Run, phase: Phase, state: TrainState) -> str:
    """Steps of a phase, and the memory that one takes."""
    batches = phase.batches
    size = min(batches.batch_size, len(batches.windows))
    batch = batches.make_batch(np.arange(size))
    catalogue, placed = phase.place(r, batch)
    if batches.negatives.is_stale:
        shape = r.data.num_items, r.config.item_tower.width
        table = jax.ShapeDtypeStruct(shape, jnp.dtype(r.config.train.dtype))
        catalogue = {**catalogue, "stale": {"vectors_NxD": table}}
    memory = phase.step.memory(state, phase.frozen, catalogue, placed, r.dropout_key)
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if jax.devices()[0].platform == "cpu" and memory > have:
        raise UserError(
            f"phase {phase.config.name}: a step needs {memory / 2**30:.1f} GiB, the "
            f"machine has {have / 2**30:.1f}; try a smaller train.batch_size"
        )
    steps = batches.steps_per_epoch
    return (
        f"phase {phase.config.name}: at most {phase.config.epochs} epochs of {steps:,} "
        f"steps; a step takes {memory / 2**20:,.0f} MiB of a device"
    )
