"""Marks of repeated items in the history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.checkpointing.checkpoints import read_params
from recjax.config import base
from recjax.models.users.repeats import RepeatEmbedding
from recjax.run import train


def test_repeated_items_are_marked():
    vectors = jnp.zeros((2, 5, 3))
    history = jnp.array([[0, 0, 7, 2, 7], [4, 1, 4, 4, 2]])
    mask = jnp.array(
        [[False, False, True, True, True], [False, True, True, True, True]]
    )
    mark = jnp.array([1.0, 2.0, 3.0])
    marked = RepeatEmbedding().apply({"params": {"mark": mark}}, vectors, history, mask)
    again = [[0, 0, 0, 0, 1], [0, 0, 0, 1, 0]]  # padding is no occurrence
    np.testing.assert_array_equal(marked, np.array(again)[..., None] * np.array(mark))


@pytest.mark.parametrize("repeats", [True, False])
def test_marks_distinguish_repeated_items(config, tmp_path, repeats):
    """History b leads to c, history b b to d: only marks distinguish the two.

    The tower is a mean over the history, in which b b equals b.
    """
    folder = tmp_path / "again"
    folder.mkdir()
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    lines = [header, *(f"u{i}\tb\tc\nu{i}\tb b\td" for i in range(20))]
    for part in ("train", "valid", "test"):
        (folder / f"again.{part}.inter").write_text("\n".join(lines) + "\n")
    (folder / "again.item").write_text("item_id:token\nb\nc\nd\n")
    c = config.unlock()
    c.data.source, c.data.split = str(folder), "fixed"
    c.data.item_table, c.data.time = False, ""
    c.item_tower.sources, c.eval.mask_seen = ("id",), False
    c.user_tower.name, c.user_tower.repeats = "mean", repeats
    c.eval.ks, c.train.metric = (1, 2), "hr@1"
    c.report.metrics = ("hr@1",)
    c.train.phases = (base.phase("p", epochs=40, lr=0.1, patience=0),)
    final = train.run(c.lock(), str(tmp_path / "run"))
    assert (final["test"]["hr@1"]["value"] > 0.9) == repeats
    assert ("repeat/mark" in read_params(tmp_path / "run")) == repeats


def test_marks_have_a_gradient():
    history, mask = jnp.array([[3, 3]]), jnp.ones((1, 2), bool)

    def total(mark):
        params = {"params": {"mark": mark}}
        return RepeatEmbedding().apply(params, jnp.ones((1, 2, 4)), history, mask).sum()

    np.testing.assert_array_equal(jax.grad(total)(jnp.zeros(4)), np.ones(4))
