"""The processes of a distributed run: how they start, and how they end together."""

import os
import re
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from recjax.common.errors import PROCESS_LOST, UserError, first_line

# Words in the errors of gloo and of JAX's coordination service when a peer is lost.
PEER_LOST_PATTERN = re.compile(
    r"gloo|connection|peer|coordination|heartbeat|barrier", re.IGNORECASE
)


def initialize_distributed(
    coordinator: str | None, processes: int, process: int
) -> None:
    """Connects to the other processes of the run, and waits for them.

    `coordinator` is host:port of process 0; None if there is only one process.

    Raises:
      UserError: the processes do not find each other, or the flags are inconsistent.
    """
    if processes < 1:
        raise UserError(f"--processes={processes} is not at least 1")
    if processes == 1 and coordinator is None:
        return
    if coordinator is None:
        raise UserError("--processes needs --coordinator=HOST:PORT of process 0")
    if not 0 <= process < processes:
        raise UserError(f"--process={process} is not from 0 to {processes - 1}")
    port = coordinator.rpartition(":")[2]
    if not re.fullmatch(r"\S+:\d{1,5}", coordinator) or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator} is not HOST:PORT")
    # JAX's preemption service would handle SIGTERM itself; `signals` has to see it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as e:
        raise UserError(f"--coordinator {coordinator}: {first_line(e)}") from None


def all_processes(condition: bool) -> bool:
    """Returns whether a condition holds in all processes; all have to call this."""
    if jax.process_count() == 1:
        return condition
    return bool(multihost_utils.process_allgather(np.array(condition)).all())


def exit_if_peer_lost(error: BaseException) -> None:
    """Exits if the error comes from a lost process, without waiting for any other."""
    if jax.process_count() == 1 or not PEER_LOST_PATTERN.search(str(error)):
        return
    reason = first_line(error)[:200]
    print(
        f"error: another process of the run is gone ({reason}); start all of "
        "them again to resume",
        file=sys.stderr,
        flush=True,
    )
    # Not sys.exit: its exit handlers wait for the lost process at a barrier.
    os._exit(PROCESS_LOST)
