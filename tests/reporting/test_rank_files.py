"""Stored ranks are read back only if every byte is as it was written."""

import os

import numpy as np
import pytest

from recjax.reporting.rank_files import read_ranks, write_ranks

pytestmark = pytest.mark.unit
RANKS = np.array([1, 7, 300_000], np.int64)


def test_ranks_are_read_back(tmp_path):
    write_ranks(tmp_path / "towers", RANKS)
    assert read_ranks(tmp_path / "towers", 3).tolist() == RANKS.tolist()


def flip(path):
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


def swap(path):
    write_ranks(path.with_name("popularity"), RANKS)
    path.with_name("popularity").replace(path)


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes() + b"0"),
        lambda path: os.truncate(path, 2**40),
        flip,
        swap,
        make_pipe,
    ],
)
def test_damaged_ranks_are_an_error(tmp_path, damage):
    write_ranks(tmp_path / "towers", RANKS)
    damage(tmp_path / "towers")
    with pytest.raises(ValueError, match="the file is "):
        read_ranks(tmp_path / "towers", 3)
