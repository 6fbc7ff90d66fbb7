"""Runs that learn whether users like items."""

import numpy as np
import pytest

import recjax
from recjax.checkpointing.checkpoints import read_params
from recjax.config import base
from recjax.run import train


def trained(config, folder, **keys):
    c = config.copy_and_resolve_references().unlock()
    c.data.rating, c.eval.like_threshold = "rating", 3.0
    c.eval.baselines = ()
    c.update_from_flattened_dict(keys)
    return train.run(c.lock(), str(folder)), read_params(folder)


def write_moods(folder):
    """Writes users who like all items or none, each of which half of them like."""
    folder.mkdir()
    events = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    rng = np.random.default_rng(0)
    for u in range(40):
        for j, i in enumerate(rng.permutation(8)[:6]):
            events.append(f"u{u}\ti{i}\t{5 if u % 2 else 1}\t{j}")
    (folder / "moods.inter").write_text("\n".join(events) + "\n")
    (folder / "moods.item").write_text(
        "item_id:token\n" + "\n".join(f"i{i}" for i in range(8)) + "\n"
    )
    return folder


@pytest.mark.parametrize("ratings", [True, False])
def test_ratings_of_the_history_predict_the_next_one(config, tmp_path, ratings):
    phase = base.phase("p", epochs=20, lr=3e-2, patience=0)
    keys = {
        "data.source": str(write_moods(tmp_path / "moods")),
        "data.item_table": False,
        "item_tower.sources": ("id",),
        "user_tower.ratings": ratings,
        "user_tower.name": "mean",
        "loss.name": "rating",
        "train.metric": "like_auc",
        "report.metrics": ("like_auc",),
        "report.save_model": True,
        "train.phases": (phase,),
    }
    final, params = trained(config, tmp_path / "run", **keys)
    auc = final["test"]["like_auc"]["value"]
    assert auc == pytest.approx(final["phases"]["p"]["rating"]["auc"])
    assert (auc > 0.95) == ratings
    assert ("ratings/marks" in params) == ratings
    # A saved model knows no ratings, and recommends without them.
    assert len(recjax.load(tmp_path / "run").recommend(users=["u1"], k=1)) == 1
