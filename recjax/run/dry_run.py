"""A dry run: checks everything, estimates time and memory, and writes nothing."""

import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.common.errors import UserError
from recjax.config.validate import check_config
from recjax.run.estimate import describe, estimate_run
from recjax.run.setup import open_run, trained_phases
from recjax.run.workdir import check_same_config, run_directory
from recjax.runtime.host_memory import available_memory
from recjax.training.context import Run
from recjax.training.make_phase import make_phase
from recjax.training.phase import Phase
from recjax.training.train_step import TrainState


def dry_run(config: Any, workdir: str) -> None:
    """Checks data and weights, and logs the steps, time and memory of every phase.

    Args:
      config: a locked config.
      workdir: the run directory, whose disk is checked.

    Raises:
      UserError: anything that would stop the run before its first step.
    """
    check_config(config)
    planned = run_directory(workdir)
    check_same_config(config, planned)
    if (planned / "results.json").exists():
        print(f"note: {planned} holds a finished run, which would only be shown")
    with tempfile.TemporaryDirectory() as folder:
        start_time = time.perf_counter()
        with open_run(config, Path(folder), start_time, planned) as (run, params):
            phases = trained_phases(config)
            for index, each in enumerate(phases):
                phase, state = make_phase(run, index, each, params, 0)
                needed = check_step_memory(run, phase, state)
                steps = phase.batches.steps_per_epoch
                run.reporter.log(
                    f"phase {each.name}: at most {each.epochs} epochs of {steps:,} "
                    f"steps; a step takes {needed / 2**20:,.0f} MiB per device"
                )
            # Processes would not measure the same number of steps.
            if jax.process_count() == 1:
                estimate = estimate_run(run, phases, params)
                run.reporter.log(describe(estimate))
            run.reporter.log(
                "dry run: no problems; nothing was written to the run directory"
            )


def check_step_memory(run: Run, phase: Phase, state: TrainState) -> int:
    """Returns the bytes per device that a step of a phase takes.

    Raises:
      UserError: a step needs more memory than the process may use.
    """
    batches = phase.batches
    size = min(batches.batch_size, len(batches.windows))
    batch = batches.make_batch(np.arange(size))
    catalogue, placed = phase.place(batch)
    if batches.negatives.is_stale:
        shape = run.data.num_items, run.config.item_tower.width
        table = jax.ShapeDtypeStruct(shape, jnp.dtype(run.config.train.dtype))
        catalogue = {**catalogue, "stale": {"vectors_NxD": table}}
    needed = phase.step.memory(
        state, phase.frozen, catalogue, placed, phase.dropout_key
    )
    available = available_memory()
    # The free memory of other devices is unknown here; their own allocators check it.
    if jax.devices()[0].platform == "cpu" and needed > available:
        raise UserError(
            f"phase {phase.config.name}: a step needs {needed / 2**30:.1f} GiB, and "
            f"this process may use {available / 2**30:.1f}; try a smaller "
            "train.batch_size"
        )
    return needed
