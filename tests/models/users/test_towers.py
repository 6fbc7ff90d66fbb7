"""Item and user towers, heads, and the frozen prefix."""

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.catalogue.frozen_prefix import compute_prefix
from recjax.common import param_paths
from recjax.data.batching.train_batches import TrainBatches
from recjax.data.batching.types import Batch
from recjax.data.batching.windows import NextItem
from recjax.data.splits import load_data
from recjax.data.text.packing import Items, Packing
from recjax.data.text.tokenize import tokenize
from recjax.losses.base import LossInputs
from recjax.losses.softmax import softmax
from recjax.models.encoders.huggingface import load_config
from recjax.models.heads import HEADS
from recjax.models.items.text_source import count_frozen_blocks
from recjax.models.items.tower import COMBINE
from recjax.models.layers.pooling import AttentionPool, pool_first, pool_mean
from recjax.models.recommender import Recommender, make_model
from recjax.models.users import BIDIRECTIONAL, USER_TOWERS, make_user_tower
from recjax.runtime import mesh as mesh_lib
from recjax.runtime.compiler import Compiler
from recjax.training.initial_params import dummy_inputs, init_params, trace_init


@pytest.fixture
def texts(config):
    """Everything a text model needs, on synthetic data."""
    data = load_data(config)
    folder = Path(config.text.encoder)
    tokens = tokenize(
        data.render(config.text.template, "text.template"),
        folder,
        max_tokens=12,
        vocab_size=10**6,
    )
    model = make_model(config, data.num_items, load_config(folder))
    mesh = mesh_lib.make_mesh(config.mesh)
    traced = trace_init(config, model)
    params = init_params(config, traced, folder, mesh, Compiler(print, mesh))
    items_U = np.append(np.arange(data.num_items), -1).astype(np.int32)
    packed = Packing(tokens, 16).pack(items_U)
    items = Items(items_U, np.where(items_U < 0, -np.inf, 0).astype(np.float32), packed)
    return data, tokens, model, params, items


def with_sources(config, sources, **item_tower):
    config = config.copy_and_resolve_references().unlock()
    config.item_tower.sources = sources
    for key, value in item_tower.items():
        config.item_tower[key] = value
    return config


@pytest.mark.parametrize(
    ("sources", "combine", "pooling"),
    [
        (("id",), "sum", "mean"),
        (("text",), "concat", "cls"),
        (("text",), "gate", "mean"),
        (("text",), "sum", "pooler"),
        (("id", "text"), "sum", "attention"),
        (("id", "text"), "concat", "pooler"),
        (("id", "text"), "gate", "cls"),
    ],
)
def test_every_item_tower_encodes_and_learns(config, texts, sources, combine, pooling):
    data, tokens, model, _, items = texts
    config = with_sources(config, sources, combine=combine, pooling=pooling)
    encoder = model.encoder_config if "text" in sources else None
    model = make_model(config, data.num_items, encoder)
    variables = model.init(jax.random.key(0), *dummy_inputs(6))
    catalogue = {"text": {"ids_T": tokens.ids}}

    def total(variables):
        vectors = model.apply(
            variables, catalogue, items, method=Recommender.encode_items
        )
        return (vectors[:-1] ** 2).sum(), vectors

    gradient = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, vectors), grads = gradient(variables)
    assert vectors.shape == (data.num_items + 1, config.item_tower.width)
    flat = param_paths.flatten_params(grads["params"])
    silent = [
        path
        for path, g in flat.items()
        if path.startswith("items/")
        and not np.abs(g).max() > 0
        # a key's bias shifts all scores alike; softmax does not see it
        and not path.endswith("key/bias")
    ]
    assert not silent
    assert np.isfinite(vectors[:-1]).all()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_mlp_before_the_projection(config, texts, depth):
    data, tokens, model, _, items = texts
    config = with_sources(config, ("text",), mlp_layers=depth)
    model = make_model(config, data.num_items, model.encoder_config)
    params = param_paths.flatten_params(
        model.init(jax.random.key(0), *dummy_inputs(6))["params"]
    )
    rng = np.random.default_rng(0)
    params = {k: x + 0.1 * rng.normal(size=x.shape) for k, x in params.items()}
    layers = [path for path in params if path.startswith("items/text/mlp_")]
    assert len(layers) == 2 * depth

    def encode(params, catalogue):
        return model.apply(
            {"params": param_paths.unflatten_params(params)},
            {"text": catalogue},
            items,
            method=Recommender.encode_items,
        )

    vectors_NxE = rng.normal(size=(data.num_items, 16)).astype(np.float32)
    x = vectors_NxE
    for i in range(depth):
        stem = f"items/text/mlp_{i}/"
        x = jax.nn.gelu(
            x @ params[stem + "kernel"] + params[stem + "bias"][None], False
        )
    stem = "items/text/project/"
    want = x @ params[stem + "kernel"] + params[stem + "bias"][None]
    got = encode(params, {"vectors_NxE": vectors_NxE})[:-1]
    np.testing.assert_allclose(got, want, atol=1e-5)
    # Over tokens too, with a gradient in every layer.
    grads = jax.grad(lambda p: (encode(p, {"ids_T": tokens.ids}) ** 2).sum())(params)
    assert all(np.abs(grads[path]).max() > 0 for path in layers)


def test_combinations_by_hand():
    """Two items with two sources each."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2, 3)).astype(np.float32)

    class Combine(nn.Module):
        how: str

        @nn.compact
        def __call__(self, vectors):
            return COMBINE[self.how](vectors, 3)

    def run(how):
        module = Combine(how)
        variables = module.init(jax.random.key(0), [a, b])
        shift = lambda x: x + 0.1 * rng.normal(size=x.shape)  # noqa: E731
        variables = jax.tree.map(shift, variables)
        return module.apply(variables, [a, b]), variables.get("params", {})

    np.testing.assert_allclose(run("sum")[0], a + b, rtol=1e-5)
    got, p = run("concat")
    both = np.concatenate([a, b], -1)
    np.testing.assert_allclose(got, both @ p["concat"]["kernel"], rtol=1e-5)
    got, p = run("gate")
    scores = np.exp(both @ p["gate"]["kernel"] + p["gate"]["bias"][None])
    one, other = scores[:, :3], scores[:, 3:]
    want = 2 * (a * one + b * other) / (one + other)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert set(COMBINE) == {"sum", "concat", "gate"}


def test_poolings_by_hand():
    states = jnp.arange(12.0).reshape(1, 6, 2)

    class P:
        first_U = jnp.array([0, 2, 0])
        owner_RxL = jnp.array([[0, 0, 1, 1, 1, 3]])

    np.testing.assert_allclose(pool_first(states, P)[:2], states[0, [0, 2]])
    mean = pool_mean(states, P)
    np.testing.assert_allclose(mean, [[1, 2], [6, 7], [0, 0]])
    pool = AttentionPool(4)
    variables = pool.init(jax.random.key(0), states, P)
    p = variables["params"]
    scores = jnp.tanh(states[0] @ p["hidden"]["kernel"]) @ p["query"]["kernel"]
    for u, part in ((0, slice(0, 2)), (1, slice(2, 5))):
        weights = jax.nn.softmax(scores[part, 0])
        want = (weights[:, None] * states[0, part]).sum(0)
        np.testing.assert_allclose(pool.apply(variables, states, P)[u], want, rtol=1e-5)


CASES = [
    *((name, "relative") for name in USER_TOWERS),
    ("transformer", "absolute"),
    ("bert4rec", "absolute"),
    *((f"{name}+recency", "relative") for name in ("mean", "gru", "transformer")),
    ("transformer+filter", "relative"),
]
every_user_tower = pytest.mark.parametrize(("name", "position"), CASES)
causal_user_tower = pytest.mark.parametrize(
    ("name", "position"), [case for case in CASES if case[0] not in BIDIRECTIONAL]
)


def two_layers(config, name, position, length=6):
    """A user tower whose convolutions are so narrow that only dilation reaches far."""
    c = config.unlock().user_tower
    c.position, c.num_layers, c.kernel_size = position, 2, 2
    c.name, _, option = name.partition("+")
    c.recency, c.filter_share = option == "recency", 0.7 * (option == "filter")
    return make_user_tower(c, length, 8, jnp.float32)


@causal_user_tower
def test_user_towers_are_causal(config, name, position):
    """Each of 12 positions sees itself and all earlier ones but padding."""
    tower = two_layers(config, name, position, length=12)
    rng = np.random.default_rng(0)
    history = jnp.asarray(rng.normal(size=(2, 12, 8)), jnp.float32)
    mask = np.ones((2, 12), bool)
    mask[1, :2] = False
    variables = tower.init(jax.random.key(0), history, mask, False)

    @jax.jit
    def slopes(x):
        """Gradients of each position's squared output by its inputs: HxBxHxD."""
        return jax.jacrev(
            lambda x: (tower.apply(variables, x, mask, False) ** 2).sum((0, 2))
        )(x)

    reads_HxBxH = np.abs(slopes(history)).max(-1) > 0
    for h in range(2, 12):
        expected = (np.arange(12) <= h) & mask
        np.testing.assert_array_equal(reads_HxBxH[h], expected)


@every_user_tower
def test_every_parameter_of_a_user_tower_counts(config, name, position):
    """No parameter has a zero gradient."""
    tower = two_layers(config, name, position)
    rng = np.random.default_rng(0)
    history = jnp.asarray(rng.normal(size=(2, 6, 8)), jnp.float32)
    mask = np.ones((2, 6), bool)
    hidden = [np.arange(6)[None] == np.array([[2], [5]])] * (name in BIDIRECTIONAL)
    variables = tower.init(jax.random.key(0), history, mask, False, *hidden)
    # A matrix of zeros would hide what comes before it.
    variables = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), variables)
    wanted = jnp.asarray(rng.normal(size=(2, 6, 8)), jnp.float32)

    def loss(variables):
        return (tower.apply(variables, history, mask, False, *hidden) * wanted).sum()

    grads = param_paths.flatten_params(
        jax.jit(jax.grad(loss))(variables).get("params", {})
    )
    # A key's bias shifts all scores of a position alike; softmax does not see it.
    silent = [path for path, g in grads.items() if not np.abs(g).max() > 1e-7]
    assert [path for path in silent if not path.endswith("key/bias")] == []
    assert len(grads) == len(param_paths.flatten_params(variables.get("params", {})))


@pytest.mark.parametrize("position", ["relative", "absolute"])
def test_bidirectional_towers_see_all_items_except_masked_ones(config, position):
    config.unlock().user_tower.position = position
    tower = USER_TOWERS["bert4rec"](config.user_tower, 6, jnp.float32)
    rng = np.random.default_rng(0)
    history = jnp.asarray(rng.normal(size=(2, 6, 8)), jnp.float32)
    mask, hidden = np.ones((2, 6), bool), np.zeros((2, 6), bool)
    mask[1, :2], hidden[:, 3] = False, True
    variables = tower.init(jax.random.key(0), history, mask, False, hidden)

    def out(x):
        return (tower.apply(variables, x, mask, False, hidden)[:, 3] ** 2).sum()

    reads = np.abs(jax.grad(out)(history)).max(-1) > 0
    np.testing.assert_array_equal(reads, mask & ~hidden)


@every_user_tower
def test_user_towers_do_not_see_padding(config, name, position):
    tower = two_layers(config, name, position)
    rng = np.random.default_rng(0)
    history = jnp.asarray(rng.normal(size=(2, 6, 8)), jnp.float32)
    mask = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]], bool)
    variables = tower.init(jax.random.key(0), history, mask, False)
    # Initial position vectors are too small to show a difference.
    variables = jax.tree.map(lambda x: x + rng.normal(size=x.shape), variables)
    whole = tower.apply(variables, history, mask, False)
    cut = tower.apply(variables, history[:, 2:], mask[:, 2:], False)
    for b in range(2):
        np.testing.assert_allclose(
            cut[b][mask[b, 2:]], whole[b][mask[b]], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", HEADS)
def test_heads_score_as_documented(name):
    head = HEADS[name](5, 0.5)
    rng = np.random.default_rng(0)
    users, vectors = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    users, vectors = users.astype(np.float32), vectors.astype(np.float32)
    rows = jnp.arange(5)

    def run(module):
        return module.queries(users), *module.candidates(vectors, rows)

    variables = head.init(jax.random.key(0), method=run)
    p = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), variables)
    queries, candidates, bias = head.apply(p, method=run)
    scores = queries @ candidates.T + bias[None]
    p = p["params"]
    if name == "two_tower":
        norms = np.linalg.norm(users, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
        want = users @ vectors.T / norms * np.exp(p["log_scale"])
    else:
        want = users @ p["bilinear"]["kernel"] / 0.5 @ vectors.T + p["bias"][None]
    np.testing.assert_allclose(scores, want, rtol=2e-5, atol=1e-5)


def test_frozen_blocks_follow_from_what_is_trained(texts):
    model = texts[2]
    stem = "items/text/encoder/"
    count = lambda *paths: count_frozen_blocks(model.encoder_config, paths)  # noqa: E731
    assert count("users/norm/scale", "items/text/project/kernel") == 5
    assert count("items/text/mlp_0/kernel") == 5
    assert count(stem + "layer_1/mlp_down/bias") == 2
    assert count(stem + "layer_2/mlp_up/kernel") == 3
    assert count(stem + "layer_2/mlp_up/kernel", stem + "layer_0/mlp_up/bias") == 1
    assert count(stem + "layer_2/attention/value/lora_b") == 3
    assert count(stem + "embeddings/norm/scale") == 0
    assert count("items/text/pool/hidden/kernel") == 4
    assert count(stem + "pool/kernel") == 4


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
def test_cached_prefix_gives_the_same_loss_and_gradients(texts, blocks):
    data, tokens, model, params, items = texts
    model = model.with_text(frozen_blocks=blocks)
    ids = {"text": {"ids_T": jnp.asarray(tokens.ids)}}
    variables = {"params": param_paths.unflatten_params(params)}
    pooled = blocks == 5

    def encode(packed):
        method = Recommender.encode_prefix
        states = model.apply(variables, ids, packed, blocks, method=method)
        if not pooled:
            return states
        return model.apply(variables, states, packed, method=Recommender.pool_text)

    cached = compute_prefix(
        encode,
        [items],
        pooled=pooled,
        num_rows=data.num_items if pooled else len(tokens.ids),
        allocate=np.zeros,
    )
    cached = {"vectors_NxE" if blocks == 5 else "states_TxE": cached}
    batch = make_batch(data, items)

    def loss(catalogue):
        return lambda params: total_loss(model, params, catalogue, batch, dropout=True)

    names = [f"layer_{i}/" for i in range(blocks - 1)] + ["embeddings/"]
    value, grads = jax.jit(jax.value_and_grad(loss(ids)))(params)
    got, got_grads = jax.jit(jax.value_and_grad(loss({"text": cached})))(params)
    np.testing.assert_allclose(got, value, rtol=1e-6)
    for path, g in grads.items():
        if any(f"encoder/{name}" in path for name in names):
            assert not np.abs(got_grads[path]).max()  # not computed at all
        else:
            atol = 3e-5 * max(float(np.abs(g).max()), 1.0)
            np.testing.assert_allclose(got_grads[path], g, atol=atol, err_msg=path)


def make_batch(data, items):
    """Four random histories over the entire catalogue."""
    rng = np.random.default_rng(0)
    history = rng.integers(0, data.num_items, (4, 6)).astype(np.int32)
    targets = rng.integers(0, data.num_items, 24).astype(np.int32)
    position = np.arange(24, dtype=np.int32)
    users = np.arange(4, dtype=np.int32)
    mask = np.ones((4, 6), bool)
    return Batch(history, mask, None, targets, position, None, users, items)


def total_loss(model, params, catalogue, batch, dropout=False, key=3):
    variables = {"params": param_paths.unflatten_params(params)}
    rngs = {"dropout": jax.random.key(key)}
    *compared, _ = model.apply(variables, catalogue, batch, dropout, rngs=rngs)
    mask_P, weight_U = batch.position_P >= 0, batch.items.log_weight_U
    scored = LossInputs(*compared, batch.targets_P, mask_P, weight_U)
    return softmax(scored).sum()


@pytest.mark.parametrize(("blocks", "drops"), [(0, True), (3, True), (5, False)])
def test_the_encoder_has_dropout_where_it_is_trained(texts, blocks, drops):
    data, tokens, model, params, items = texts
    users = USER_TOWERS["mean"](None, 0, jnp.float32)  # no other drops
    model = model.clone(users=users).with_text(frozen_blocks=blocks)
    params = {k: x for k, x in params.items() if not k.startswith("users/")}
    ids = {"text": {"ids_T": jnp.asarray(tokens.ids)}}
    batch = make_batch(data, items)
    loss = jax.jit(
        lambda key: total_loss(model, params, ids, batch, dropout=True, key=key)
    )
    assert (abs(loss(1) - loss(2)) > 1e-3) == drops


def assert_same_gradients(got, want):
    for path, g in want.items():
        atol = 3e-5 * max(float(np.abs(g).max()), 1.0)
        np.testing.assert_allclose(got[path], g, atol=atol, err_msg=path)


def test_each_item_once_gives_the_same_loss_and_gradients(config, texts):
    """A batch of `TrainBatches` against the plain computation: the item of every
    position encoded alone in a padded row; every target of the batch is a negative of
    every other target, except copies of it."""
    data, tokens, model, params, _ = texts
    made = TrainBatches(
        NextItem(data.train, 6, windows="all"),
        batch_size=8,
        negatives="in_batch",
        logq=True,
        num_items=data.num_items,
    )
    made.packing = Packing(tokens, 16)
    batch = made.make_batch(np.arange(8))
    items, places = batch.items, batch.position_P[batch.position_P >= 0]
    history = items.items_U[batch.history_BxH][batch.mask_BxH]
    targets = items.items_U[batch.targets_P[: len(places)]]
    assert len(set(history) | set(targets)) <= len(history) / 2  # deduplication matters
    ids = {"text": {"ids_T": jnp.asarray(tokens.ids)}}

    def plain(params):
        variables = {"params": param_paths.unflatten_params(params)}

        def encode(rows):
            packed = Packing(tokens, int(tokens.lengths.max())).pack(rows)
            alone = [made.packing.pack(rows[i : i + 1]) for i in range(len(rows))]
            index, position, segment, owner, _ = zip(*alone, strict=True)
            packed = packed._replace(
                index_RxL=np.concatenate(index),
                position_RxL=np.concatenate(position),
                segment_RxL=np.concatenate(segment),
                owner_RxL=np.concatenate(
                    [np.where(o == 0, i, len(rows)) for i, o in enumerate(owner)]
                ),
                first_U=np.arange(len(rows)) * 16,
            )
            items = Items(rows, np.zeros(len(rows), np.float32), packed)
            return model.apply(variables, ids, items, method=Recommender.encode_items)

        history_PxD, targets_PxD = encode(history), encode(targets)
        history_BxHxD = jnp.zeros((*batch.mask_BxH.shape, model.items.width))
        history_BxHxD = history_BxHxD.at[batch.mask_BxH].set(history_PxD)
        users = model.apply(
            variables, history_BxHxD, batch.mask_BxH, method=Recommender.encode_users
        ).reshape(-1, model.items.width)[places]
        of_head = {"params": variables["params"]["head"]}
        queries = model.head.apply(of_head, users, method="queries")
        vectors, bias = model.head.apply(
            of_head, targets_PxD, targets, method="candidates"
        )
        logits = queries @ vectors.T + bias[None]
        own = jnp.diagonal(logits)
        expected = np.log(made.target_freq_N[targets] * 8).astype(np.float32)
        other = targets[:, None] != targets[None]
        negatives = jnp.where(other, logits - expected[None], -jnp.inf)
        return (jnp.logaddexp(own, jax.nn.logsumexp(negatives, axis=1)) - own).sum()

    want, want_grads = jax.jit(jax.value_and_grad(plain))(params)
    got, got_grads = jax.jit(
        jax.value_and_grad(lambda p: total_loss(model, p, ids, batch))
    )(params)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert_same_gradients(got_grads, want_grads)


@pytest.mark.parametrize("rows", [4, 8])
def test_rematerialization_gives_the_same_gradients(texts, rows):
    data, tokens, model, params, items = texts
    items = items._replace(packed=items.packed.fill_up(16))
    assert len(items.packed.index_RxL) == 16
    ids = {"text": {"ids_T": jnp.asarray(tokens.ids)}}
    off = dataclasses.replace(
        model.encoder_config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = model.clone(users=USER_TOWERS["mean"](None, 0, jnp.float32))
    params = {k: x for k, x in params.items() if not k.startswith("users/")}
    batch = make_batch(data, items)

    def run(remat_rows):
        encoder = off.make_encoder(remat_rows=remat_rows)
        remat = model.with_text(encoder=encoder)

        def loss(params):
            return total_loss(remat, params, ids, batch, dropout=True)

        compiled = jax.jit(jax.value_and_grad(loss)).lower(params).compile()
        return compiled(params), compiled.memory_analysis().temp_size_in_bytes

    (want, want_grads), whole = run(0)
    (got, got_grads), pieces = run(rows)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert_same_gradients(got_grads, want_grads)
    assert pieces < whole


def test_stale_vectors_of_this_state_are_the_full_softmax(texts):
    """With vectors of another state, the batch's own items are fresh all the same."""
    data, tokens, model, params, items = texts
    ids = {"text": {"ids_T": jnp.asarray(tokens.ids)}}
    variables = {"params": param_paths.unflatten_params(params)}
    vectors = model.apply(variables, ids, items, method=Recommender.encode_items)
    full = make_batch(data, items)
    want, want_grads = jax.value_and_grad(lambda p: total_loss(model, p, ids, full))(
        params
    )

    rows = np.unique([full.history_BxH.ravel(), full.targets_P])
    assert len(rows) < data.num_items
    items_U = np.append(rows, -1).astype(np.int32)
    own = Items(
        items_U,
        np.zeros(data.num_items, np.float32),
        Packing(tokens, 16).pack(items_U),
    )
    history = np.searchsorted(rows, full.history_BxH)
    batch = full._replace(history_BxH=history, items=own)

    def stale(vectors_NxD):
        catalogue = ids | {"stale": {"vectors_NxD": vectors_NxD}}
        return jax.value_and_grad(lambda p: total_loss(model, p, catalogue, batch))(
            params
        )

    got, grads = stale(vectors[:-1])
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for path in ("users/norm/scale", "head/bilinear/kernel", "head/bias"):
        np.testing.assert_allclose(grads[path], want_grads[path], atol=2e-4)
    path = "items/text/project/kernel"  # no gradient through what is stale
    assert np.abs(grads[path] - want_grads[path]).max() > 1e-3
    others = np.setdiff1d(np.arange(data.num_items), rows)
    np.testing.assert_allclose(stale(vectors[:-1].at[rows].set(9.0))[0], got, rtol=1e-6)
    assert abs(stale(vectors[:-1].at[others].set(9.0))[0] - got) > 1e-3
