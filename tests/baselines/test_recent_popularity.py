"""Recent popularity against weights that are computed by hand."""

import numpy as np
import pytest

from recjax.baselines.popularity import RecentPopularity
from recjax.data.splits import load_data

pytestmark = pytest.mark.unit


def counts(data, half_life):
    baseline = RecentPopularity(0, half_life=half_life)
    baseline.fit(data.train, data.num_items)
    return dict(zip(data.item_ids.tolist(), baseline.counts_N.tolist(), strict=True))


def write(folder, **files):
    for kind, lines in files.items():
        path = folder / f"{folder.name}.{kind.replace('_', '.')}"
        path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def shop(config, tmp_path):
    c = config.unlock()
    c.data.source, c.data.item_table = str(tmp_path), False
    return c


def test_by_time(shop, tmp_path):
    """Training events: a at 1, b and c at 5, a at 9; the half-life is two events."""
    events = [
        "u a 1",
        "u c 5",
        "u x 10",
        "u y 11",
        "v b 5",
        "v a 9",
        "v x 20",
        "v y 21",
    ]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    write(tmp_path, inter=[header, *(e.replace(" ", "\t") for e in events)])
    found = counts(load_data(shop), half_life=0.5)
    want = {"a": 1 + 0.5**1.5, "b": 0.5**0.5, "c": 0.5**0.5, "x": 0, "y": 0}
    assert found == pytest.approx(want)


def test_by_order_where_there_are_no_times(shop, tmp_path):
    """Items of histories only (a, a, c) come before the targets; half-life seven."""
    shop.data.split = "fixed"
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    lines = [header, "u\ta\tb", "u\ta b\tc", "v\ta a\tb", "w\tc\td"]
    write(tmp_path, train_inter=lines, valid_inter=lines, test_inter=lines)
    found = counts(load_data(shop), half_life=1.0)
    weights = [0.5 ** (newer / 7) for newer in range(7)]
    want = dict.fromkeys("abcd", 0.0)
    for item, weight in zip("dbcbcaa", weights, strict=True):
        want[item] += weight
    assert found == pytest.approx(want)


def test_wide_half_life_is_popularity(data):
    found = list(counts(data, half_life=1e9).values())
    want = np.bincount(data.train.events(), minlength=data.num_items)
    np.testing.assert_allclose(found, want, rtol=1e-5)
