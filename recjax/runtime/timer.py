"""Accounts of the seconds that a run takes."""

from typing import NamedTuple


class Moment(NamedTuple):
    """By `time.perf_counter`, and seconds spent compiling before."""

    clock: float
    compiled: float
