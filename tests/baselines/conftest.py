"""A random data set that is small enough for loops, with two kinds of splits."""

import numpy as np
import pytest

from recjax.data.batching.eval_batches import make_queries
from recjax.data.splits import load_data

NUM_USERS, NUM_ITEMS = 30, 20


@pytest.fixture(scope="session")
def random_dir(tmp_path_factory):
    """Users with 3 to 12 events, some of them repeated; one item has none."""
    folder = tmp_path_factory.mktemp("random") / "random"
    folder.mkdir()
    rng = np.random.default_rng(0)
    ids = [f"i{i}" for i in range(NUM_ITEMS + 1)]
    write(folder, "item", ["item_id:token", *ids])
    events = ["user_id:token\titem_id:token\ttimestamp:float"]
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    splits = {"train": [header], "valid": [header], "test": [header]}
    for u in range(NUM_USERS):
        walk = rng.geometric(0.15, rng.integers(3, 13)) % NUM_ITEMS
        times = np.sort(rng.integers(0, 50, len(walk)))
        for i, time in zip(walk, times, strict=True):
            line = f"u{u}\ti{i}\t{time}"
            events += [line] * (line not in events)  # the same event counts once
        for j in range(1, len(walk)):
            part = {len(walk) - 1: "test", len(walk) - 2: "valid"}.get(j, "train")
            history = " ".join(f"i{i}" for i in walk[:j])
            splits[part].append(f"u{u}\t{history}\ti{walk[j]}")
    write(folder, "inter", events)
    for part, lines in splits.items():
        write(folder, f"{part}.inter", lines)
    return folder


def write(folder, kind, lines):
    (folder / f"{folder.name}.{kind}").write_text("\n".join(lines) + "\n")


@pytest.fixture(params=["leave_one_out", "fixed"])
def data(request, config, random_dir):
    """The random data set, with each of the two kinds of splits."""
    c = config.unlock()
    c.data.source, c.data.split = str(random_dir), request.param
    return load_data(c)


@pytest.fixture
def batches(data):
    """The test examples as queries; the last batch has padding."""
    return list(make_queries(data.test, batch_size=7, history_length=9, mask_seen=True))
