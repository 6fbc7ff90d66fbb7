"""A sweep that takes seconds."""

import json

import pytest

CONFIG = """
from pathlib import Path

from recjax.config import base
from recjax.config.variants import read_variants
from tests.conftest import shrink


def get_config(variant="narrow"):
    c = shrink(base.get_config(), Path({data!r})).unlock()
    c.item_tower.sources = ("id",)
    c.train.phases = (base.phase("p", epochs={epochs}, lr=0.01, patience=0),)
    c.train.checkpoint_seconds = 0.1
    c.update_from_flattened_dict(dict(read_variants(sweep)[variant]))
    return c.lock()


def sweep(add):
    add("narrow", {{}})
    add("wide", {{"item_tower.width": 16}})
    add("odd", {{"user_tower.num_heads": 3}})
"""


@pytest.fixture
def sweep_config(tmp_path_factory, atomic_dir):
    """Writes the config; the variant `odd` cannot run."""
    path = tmp_path_factory.mktemp("config") / "tiny.py"

    def write(epochs=1):
        path.write_text(CONFIG.format(data=str(atomic_dir), epochs=epochs))
        return str(path)

    return write


def results(out):
    """Results of all runs, without the values that differ between two equal runs."""
    found = {}
    for path in sorted(out.glob("*/*/results.json")):
        final = json.loads(path.read_text())
        del final["seconds"], final["peak_memory_mib"]
        found[str(path.relative_to(out))] = final
    return found
