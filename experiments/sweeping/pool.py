"""Runs several processes at a time, each on its own cores.

As a program, `python -m experiments.sweeping.pool CORES PARENT COMMAND ...` replaces
itself by the command, which runs on these cores and ends when the parent ends.
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
# Flag of every run: tables need no model, and hundreds of encoders would fill a disk.
# A flag of the same key after it wins.
NO_MODEL = "--config.report.save_model=False"


@dataclass
class Job:
    """A command and its log.

    Attributes:
      name: shown in messages, unique in a sweep.
      command: program and arguments.
      log: file to which the output is appended.
      start_time: `time.monotonic()` at the start.
      log_offset: size of the log at the start; earlier attempts wrote these bytes.
    """

    name: str
    command: Sequence[str]
    log: Path
    start_time: float = 0.0
    log_offset: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start_time

    def last_line(self) -> str:
        """Returns the last line that the command printed."""
        text = self.log.read_bytes()[self.log_offset :].decode(errors="replace")
        lines = [x.strip() for x in text.replace("\r", "\n").split("\n") if x.strip()]
        return lines[-1] if lines else "(no output)"


@dataclass
class Pool:
    """Runs jobs, each on an equal share of the cores, however many jobs are running.

    The number of threads is therefore constant; the last bits of a result depend on it.
    On Linux the jobs receive SIGTERM when this process ends, for whatever reason.

    Args:
      slots: number of jobs at a time.
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
        """Slots that have no job."""
        return [slot for slot in range(self.slots) if slot not in self.running]

    def start(self, job: Job) -> None:
        """Starts a job in a free slot."""
        slot = self.free[0]
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.start_time = time.monotonic()
        with job.log.open("ab") as log:
            job.log_offset = log.tell()
            process = subprocess.Popen(
                [*self._prefix(slot), *job.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us only; `stop` forwards it
            )
        self.running[slot] = job, process

    def _prefix(self, slot: int) -> list[str]:
        """Returns the command that pins a job to its cores, see `main`."""
        if sys.platform != "linux":
            return []
        cores = ",".join(map(str, sorted(self._shares[slot])))
        return [
            sys.executable,
            "-m",
            "experiments.sweeping.pool",
            cores,
            str(os.getpid()),
        ]

    def ended(self) -> list[tuple[Job, int]]:
        """Removes the jobs that have ended, and returns them with their exit codes."""
        found = []
        for slot, (job, process) in list(self.running.items()):
            if (code := process.poll()) is not None:
                del self.running[slot]
                found.append((job, code))
        return found

    def stop(self) -> None:
        """Asks all jobs to save and exit, and waits for them."""
        for _, process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in self.running.values():
            process.wait()
        self.running.clear()


def main() -> None:
    """Replaces this process by the command.

    A `preexec_fn` of `Popen` could do the same, but is not safe with threads.
    """
    cores, parent, *command = sys.argv[1:]
    os.sched_setaffinity(0, map(int, cores.split(",")))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # the parent ended before prctl
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
