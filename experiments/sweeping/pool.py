"""Several processes at a time, each on cores of its own.

As a program, `python -m experiments.pool CORES PARENT COMMAND ...`, it becomes the
command, on these cores and to end with that parent.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recjax.runtime.provenance import usable_cores

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class Job:
    """A command, its output, and how it went.

    Attributes:
      log: what it prints is added to this file.
      began: when it was started, by `time.monotonic`.
      printed: bytes that the log had by then, of earlier attempts.
    """

    name: str
    command: Sequence[str]
    log: Path
    began: float = 0.0
    printed: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.began

    def last_line(self) -> str:
        """What it has printed last."""
        text = self.log.read_bytes()[self.printed :].decode(errors="replace")
        said = [x.strip() for x in text.replace("\r", "\n").split("\n") if x.strip()]
        return said[-1] if said else "(said nothing)"


@dataclass
class Pool:
    """Runs jobs; each has an equal share of the cores, whatever else runs.

    So the number of threads, on which the last bits of a result depend, is always the
    same. The jobs end with this process, however it ends, where the system is Linux:
    they get SIGTERM.

    Args:
      slots: jobs at a time.
    """

    slots: int
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        cores = usable_cores()
        share = len(cores) // self.slots
        self._shares = [set(cores[i * share :][:share]) for i in range(self.slots)]

    @property
    def free(self) -> list[int]:
        """Slots without a job."""
        return [slot for slot in range(self.slots) if slot not in self.running]

    def start(self, job: Job) -> None:
        """Starts a job in a free slot."""
        slot = self.free[0]
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.began = time.monotonic()
        with job.log.open("ab") as log:
            job.printed = log.tell()
            process = subprocess.Popen(
                [*self._prefix(slot), *job.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us alone, who pass it on once
            )
        self.running[slot] = job, process

    def _prefix(self, slot: int) -> list[str]:
        """What turns into a job's command."""
        if sys.platform != "linux":
            return []
        cores = ",".join(map(str, sorted(self._shares[slot])))
        return [sys.executable, "-m", "experiments.pool", cores, str(os.getpid())]

    def ended(self) -> list[tuple[Job, int]]:
        """Jobs that have ended since this was asked last, with their exit codes."""
        found = []
        for slot, (job, process) in list(self.running.items()):
            if (code := process.poll()) is not None:
                del self.running[slot]
                found.append((job, code))
        return found

    def stop(self) -> None:
        """Asks all jobs to save and leave, and waits until they have."""
        for _, process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in self.running.values():
            process.wait()
        self.running.clear()


def main() -> None:
    """Becomes the command; doing this in a fork is not safe where there are threads."""
    cores, parent, *command = sys.argv[1:]
    os.sched_setaffinity(0, map(int, cores.split(",")))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before we asked
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
