"""Seconds by part of a run, with compilation counted separately."""

import time
from types import SimpleNamespace

import pytest

from recjax.runtime import timer as timer_lib
from recjax.runtime.timer import Timer

pytestmark = pytest.mark.unit


def test_compilation_is_counted_separately(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(timer_lib, "time", fake)
    compiler = SimpleNamespace(seconds=0.0)
    timer = Timer(compiler, start_time=99.0)
    clock.now, compiler.seconds = 110.0, 4.0
    timer.add_since("load", timer.process_start)
    start = timer.start()
    clock.now, compiler.seconds = 115.0, 6.0
    timer.add_since("train", start)
    assert timer.totals() == {"load": 7.0, "compile": 6.0, "train": 3.0, "total": 16.0}


def test_earlier_processes_count():
    timer = Timer(SimpleNamespace(seconds=0.0), start_time=time.perf_counter())
    for part, seconds in {"train": 5.0, "total": 1000.0}.items():
        timer.add(part, seconds)
    totals = timer.totals()
    assert totals["train"] == 5.0
    assert 1000 <= totals["total"] < 1100
