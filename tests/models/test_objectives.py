"""Auxiliary losses in the model: their weights, and what each of them reads."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.models.objectives import OBJECTIVES, ForwardPass, Objectives

pytestmark = pytest.mark.unit
OTHERS = {"duorec": jnp.array(3.0), "contrast": jnp.array(0.5)}


def make(*names, weights=(), temperature=0.5):
    return Objectives(names, weights, 2, temperature)


def combine(own, params):
    return own.apply({"params": params}, 2.0, OTHERS, method=Objectives.combine)


def test_fixed_weights():
    own = make("duorec", "contrast", weights=(0.1, 2.0))
    np.testing.assert_allclose(combine(own, {}), 2 + 0.1 * 3 + 2 * 0.5, rtol=1e-6)


def test_learned_weights_start_as_the_sum_and_fall_for_large_losses():
    own = make("duorec", "contrast")
    start = {"log_variances": jnp.zeros(3)}
    value, gradient = jax.value_and_grad(lambda p: combine(own, p))(start)
    np.testing.assert_allclose(value, 5.5)
    # The derivative of exp(-s) L + s at 0 is 1 - L, in the order of the losses.
    np.testing.assert_allclose(gradient["log_variances"], [-1.0, -2.0, 0.5])
    moved = {"log_variances": jnp.log(jnp.array([2.0, 3.0, 0.5]))}
    np.testing.assert_allclose(combine(own, moved), 3 + np.log(3), rtol=1e-6)


def forward(**changes):
    """Two histories of three items, of which the first has one; five candidates."""
    mask = jnp.array([[False, False, True], [True, True, True]])
    batch = SimpleNamespace(
        mask_BxH=mask,
        hidden_BxH=None,
        position_P=jnp.array([2, 3, 5, -1]),
        targets_P=jnp.array([1, 2, 0, 0]),
        label_P=jnp.array([1, 0, -1, -1]),
        items=SimpleNamespace(log_weight_U=jnp.zeros(5)),
    )
    users = jax.random.normal(jax.random.key(0), (2, 3, 4))
    vectors = jax.random.normal(jax.random.key(1), (5, 4))
    history = jnp.array([[0, 0, 3], [2, 4, 1]])
    compared = users.reshape(6, 4)[batch.position_P], vectors, jnp.zeros(5)
    items = jnp.array([7, 3, 4, 1, 0])
    categories = jnp.array([1, 0, 0, 0, 1, 0, 0, 1])
    return ForwardPass(
        users, lambda: 2 * users, vectors, items, history, compared, categories, batch
    )._replace(**changes)


def values(own, given, params=None):
    rngs = {"dropout": jax.random.key(2)}
    return own.apply({"params": params or {}}, given, rngs=rngs)


def test_targets_by_position():
    assert forward().targets_BxH().tolist() == [[-1, -1, 1], [2, -1, 0]]


def test_category_is_that_of_the_target_of_each_position():
    """The targets are the items 3, 4 and 7, of the categories 0, 1 and 1."""
    given = forward()
    kernel = jax.random.normal(jax.random.key(3), (4, 2))
    params = {"category": {"kernel": kernel, "bias": jnp.zeros(2)}}
    got = values(make("category", weights=(1.0,)), given, params)["category"]
    users_PxD = given.users_BxHxD.reshape(6, 4)[jnp.array([2, 3, 5])]
    log_prob = jax.nn.log_softmax(users_PxD @ kernel)
    want = -np.mean([log_prob[0, 0], log_prob[1, 1], log_prob[2, 1]])
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_rating_is_the_loss_of_the_known_labels():
    got = values(make("rating", weights=(1.0,)), forward())["rating"]
    queries, candidates, _ = forward().compared
    liked, other = queries[0] @ candidates[1], queries[1] @ candidates[2]
    want = (np.log1p(np.exp(-liked)) + np.log1p(np.exp(other))) / 2
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_contrast_compares_neighbours_with_items_outside_the_history():
    """Only the second history has two items: 2 and 4, or 4 and 1, against 0 and 3."""
    given = forward()
    got = values(make("contrast", weights=(1.0,)), given)["contrast"]
    unit = given.vectors_UxD / jnp.linalg.norm(given.vectors_UxD, axis=1, keepdims=True)
    wants = []
    for anchor, near in ((2, 4), (4, 1)):
        scores = unit[jnp.array([near, 0, 3])] @ unit[anchor] / 0.5
        wants.append(float(jax.nn.logsumexp(scores) - scores[0]))
    assert any(abs(got - want) < 1e-5 for want in wants)


def test_contrast_leaves_out_hidden_items():
    given = forward()
    given.batch.hidden_BxH = jnp.array([[False] * 3, [False, True, False]])
    assert values(make("contrast", weights=(1.0,)), given)["contrast"] == 0


def test_duorec_reads_both_passes():
    """Both histories have one target left, and the second pass reverses the others."""
    given = forward()
    given.batch.position_P = jnp.array([2, 5, -1, -1])
    users = given.users_BxHxD
    swapped = given._replace(encode_users=lambda: users[::-1])
    same, other = (
        values(make("duorec", weights=(1.0,)), x)["duorec"] for x in (given, swapped)
    )
    cosine = float(
        users[0, 2]
        @ users[1, 2]
        / jnp.linalg.norm(users[0, 2])
        / jnp.linalg.norm(users[1, 2])
    )
    np.testing.assert_allclose(same, np.log1p(np.exp((cosine - 1) / 0.5)), rtol=1e-5)
    np.testing.assert_allclose(other, np.log1p(np.exp((1 - cosine) / 0.5)), rtol=1e-5)


def test_a_drawn_position_is_one_of_the_allowed():
    own, allowed = make("duorec"), jnp.array([[False, True, True], [False] * 3])
    seen = set()
    for seed in range(20):
        index, mask = own.apply(
            {"params": {"log_variances": jnp.zeros(2)}},
            allowed,
            method=Objectives.draw,
            rngs={"dropout": jax.random.key(seed)},
        )
        seen.add(int(index[0]))
        assert mask.tolist() == [True, False]
    assert seen == {1, 2}


def test_every_name_has_a_loss():
    own = make(*OBJECTIVES)
    params = own.init(jax.random.key(0), jnp.zeros((2, 3, 4)), method="init_params")
    assert set(params["params"]) == {"category", "log_variances"}
    found = values(own, forward(), params["params"])
    assert list(found) == list(OBJECTIVES)
    assert all(np.isfinite(x) for x in found.values())
