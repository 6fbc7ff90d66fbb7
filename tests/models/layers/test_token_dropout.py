"""Tokens that are left out of texts in training."""

import jax
import numpy as np
import pytest

from recjax.data.text.packing import Packing, Tokens
from recjax.models.layers.token_dropout import drop_tokens

pytestmark = pytest.mark.unit

LENGTHS = np.array([1, 2, 3, 7, 12, 22])


def pack():
    offsets = np.append(0, np.cumsum(LENGTHS))
    packing = Packing(Tokens(np.arange(offsets[-1], dtype=np.int32), offsets), 24)
    packed = packing.pack(np.append(np.arange(len(LENGTHS)), -1))
    return jax.tree.map(np.asarray, packed.fill_up(len(packed.index_RxL) + 1))


def left_out(packed, seed, **rates):
    """Positions that are left out, by text."""
    changed = drop_tokens(packed, jax.random.key(seed), **rates)
    dropped_RxL = (packed.segment_RxL > 0) & (np.asarray(changed.segment_RxL) == 0)
    # What is left out belongs to no text; everything else is as before.
    size = len(packed.first_U)
    np.testing.assert_array_equal(
        changed.owner_RxL, np.where(dropped_RxL, size, packed.owner_RxL)
    )
    np.testing.assert_array_equal(
        changed.segment_RxL, np.where(dropped_RxL, 0, packed.segment_RxL)
    )
    for name in ("index_RxL", "position_RxL", "first_U"):
        np.testing.assert_array_equal(getattr(changed, name), getattr(packed, name))
    return [
        packed.position_RxL[dropped_RxL & (packed.owner_RxL == u)].tolist()
        for u in range(len(LENGTHS))
    ]


def test_tokens_are_left_out_at_the_rate_and_never_the_special_ones():
    packed, count = pack(), np.zeros((len(LENGTHS), LENGTHS.max()))
    for seed in range(200):
        for u, positions in enumerate(left_out(packed, seed, rate=0.3, span=0.0)):
            count[u, positions] += 1
    for u, length in enumerate(LENGTHS):
        inner = count[u, 1 : length - 1]
        assert count[u].sum() == inner.sum()
        np.testing.assert_allclose(inner / 200, 0.3, atol=0.15)
    assert count.sum() / 200 / (1 + 5 + 10 + 20) == pytest.approx(0.3, abs=0.02)


def test_a_span_is_contiguous_and_has_its_share_on_average():
    packed = pack()
    sizes, starts = np.zeros((200, len(LENGTHS))), set()
    for seed in range(200):
        for u, positions in enumerate(left_out(packed, seed, rate=0.0, span=0.25)):
            assert (np.diff(positions) == 1).all()
            sizes[seed, u] = len(positions)
            if u == 4 and positions:
                assert 1 <= positions[0] <= positions[-1] <= 10
                starts.add(positions[0])
    inner = np.array([0, 0, 1, 5, 10, 20])
    np.testing.assert_allclose(sizes.mean(axis=0), inner / 4, atol=0.12)
    assert (abs(sizes - inner / 4) < 1).all()
    assert starts == set(range(1, 10))


def test_nothing_is_left_out_at_zero():
    assert left_out(pack(), 0, rate=0.0, span=0.0) == [[]] * len(LENGTHS)
