"""Lists of a model that reads the times of events."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import recjax
from recjax.common.errors import UserError
from recjax.common.param_paths import unflatten_params
from recjax.data.batching.train_batches import TrainBatches
from recjax.data.batching.windows import NextItem
from recjax.data.splits import load_data
from recjax.inference.model import Model
from recjax.inference.parts import TIMES, USER


@pytest.fixture(scope="module")
def model(timed):
    return recjax.load(timed)


def trained_scores(model, data, row):
    """Scores of a test history, computed as in training: scores_N."""
    windows = NextItem(data.test, 6, windows="all", with_times=True)
    made = TrainBatches(
        windows, batch_size=1, negatives="all", logq=False, num_items=data.num_items
    )
    batch = made.make_batch(np.array([row]))
    params = unflatten_params(model.parts.params)
    vectors = model.parts.vectors

    def run(module):
        shown = batch.history_BxH, batch.mask_BxH
        history_BxHxD = module.embed_history(vectors.history_NxD, *shown)
        users = module.encode_users(
            history_BxHxD, batch.mask_BxH, times_BxH=batch.times_BxH
        )
        return module.head.queries(users[0, -1:])

    queries = model.recommender.apply({"params": params}, method=run)
    return np.asarray(queries @ vectors.candidates_NxD.T)[0] + vectors.bias_N


def as_frame(data, row):
    """The events of a test history, as a table of interactions."""
    items = data.item_ids[data.test.history(row)]
    times = data.test.history_times(row)
    return pl.DataFrame({"user_id": "u", "item_id": items, "timestamp": times})


def test_lists_of_a_table_of_events_use_its_times(model, config):
    data = load_data(config)
    catalogue = model.items["id"].to_list()
    for row in range(5):
        frame = as_frame(data, row)
        got = model.score(items=catalogue, histories=frame)[0]
        want = trained_scores(model, data, row)
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
        unknown = model.score(items=catalogue, histories=[frame["item_id"].to_list()])
        assert np.abs(unknown[0] - want).max() > 1e-2


def test_the_histories_of_a_model_have_their_times(model, config):
    data = load_data(config)
    histories = model.parts.histories
    assert histories is not None
    user = str(data.user_ids[data.test.users_R[0]])
    kept = dict(zip(histories[USER], histories[TIMES].to_list(), strict=True))[user]
    assert kept == data.test.sequence_times(0).tolist()
    frame = pl.DataFrame(
        {
            "user_id": user,
            "item_id": model.ids.history_ids(user),
            "timestamp": kept,
        }
    )
    by_user = model.score(items=["i1", "i2"], users=[user])
    by_frame = model.score(items=["i1", "i2"], histories=frame)
    np.testing.assert_allclose(by_user, by_frame, atol=1e-5)


def test_unknown_items_leave_their_times_out(model):
    items, times = ["i1", "nowhere", "i5"], [0.0, 50.0, 900.0]
    frame = pl.DataFrame({"user_id": "u", "item_id": items, "timestamp": times})
    got = model.score(items=["i2"], histories=frame)
    want = model.score(
        items=["i2"], histories=frame.filter(pl.col.item_id != "nowhere")
    )
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_model_without_times_keeps_none(finished):
    assert TIMES not in Model.from_pretrained(finished).parts.histories.columns


def test_every_item_of_a_history_has_a_time(model, tmp_path):
    histories = model.parts.histories
    cut = histories.with_columns(pl.col(TIMES).list.head(2))
    Model(replace(model.parts, histories=cut)).save_pretrained(tmp_path / "cut")
    with pytest.raises(UserError, match="another number of times than items"):
        recjax.load(tmp_path / "cut")
