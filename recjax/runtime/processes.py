"""Several processes of one run: how they begin, and how they end without one."""

import os
import re
import sys
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from recjax.common.errors import PROCESS_LOST, UserError

# What gloo and JAX's coordination service say when another process has gone.
PEER_LOST_PATTERN = re.compile(
    r"gloo|connection|peer|coordination|heartbeat|barrier", re.IGNORECASE
)


def initialize_distributed(
    coordinator: str | None, processes: int, process: int
) -> None:
    """Waits for the other processes of the run.

    Args:
      coordinator: host:port of process 0; None where there is only one.
      processes: how many there are.
      process: which one this is.

    Raises:
      UserError: they do not find each other, or are not said how.
    """
    if processes == 1 and coordinator is None:
        return
    if coordinator is None:
        raise UserError("--processes needs --coordinator=HOST:PORT of process 0")
    if not 0 <= process < processes:
        raise UserError(f"--process={process} is not one of {processes}, from 0")
    # JAX would take SIGTERM for itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise UserError(f"--coordinator {coordinator}: {reason}") from None


def all_processes(here: bool) -> bool:
    """Whether something is true in all processes, each of which asks at this place."""
    if jax.process_count() == 1:
        return here
    return bool(multihost_utils.process_allgather(np.array(here)).all())


def exit_if_peer_lost(e: BaseException) -> None:
    """Ends this process, without waiting for any other, where another one has gone."""
    if jax.process_count() > 1 and PEER_LOST_PATTERN.search(str(e)):
        exit_peer_lost(str(e).strip().splitlines()[0])


def exit_peer_lost(reason: str) -> NoReturn:
    """Ends this process and says why."""
    print(
        f"error: another process of the run is gone ({reason[:200]}); start all of "
        "them again to resume",
        file=sys.stderr,
        flush=True,
    )
    os._exit(PROCESS_LOST)
