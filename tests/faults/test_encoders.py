"""Damaged and hostile encoder directories: one line, or read as they are."""

import signal

import numpy as np
import pytest

from recjax.common.errors import UserError
from tests.faults import encoders

SECONDS = 20  # that reading a directory may take


class Hang(BaseException):
    """Reading takes too long; no reader catches it."""


def hang(signum, frame):
    raise Hang(f"reading took more than {SECONDS} seconds")


@pytest.mark.parametrize("encoder", encoders.ENCODERS)
def test_damaged_directories_are_refused_or_read(encoder, monkeypatch):
    """No traceback and no hang; what is read is finite."""
    monkeypatch.setattr(encoders, "ENCODERS", (encoder,))
    before = signal.signal(signal.SIGALRM, hang)
    messages, total = [], 0
    try:
        for name, folder in encoders.damaged():
            total += 1
            signal.alarm(SECONDS)
            try:
                _, params, ids = encoders.read(folder)
                assert all(np.isfinite(x).all() for x in params.values()), name
                assert len(ids) == len(encoders.TEXTS), name
            except UserError as e:
                messages.append((name, str(e).replace(str(folder), "FOLDER")))
            signal.alarm(0)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    for name, message in messages:
        print(f"{name}: {message[:150]}")
        assert "FOLDER" in message, name
        assert "\n" not in message, name
    print(f"{encoder}: {len(messages)} of {total} were refused")
    assert total == len(encoders.SEEDS)
    # Many bytes decide nothing: names that are ignored, digits after the sixth.
    assert len(messages) > total / 3
