"""LoRA in the encoder against the plain encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.common import param_paths
from recjax.models.encoders.huggingface import load_config, load_params
from tests.conftest import TINY_BERT

RANK, ALPHA = 3, 6.0
IDS = np.array([[2, 7, 11, 3], [2, 9, 3, 0]], np.int32)
SEGMENT = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.int32)
ADAPTED = [
    f"layer_{i}/attention/{name}/" for i in range(3) for name in ("query", "value")
]


@pytest.fixture(scope="module")
def plain():
    """The tiny encoder and its parameters."""
    bert = load_config(TINY_BERT).make_encoder()
    shapes = jax.eval_shape(lambda: init(bert))
    return bert, load_params(TINY_BERT, shapes)


@pytest.fixture(scope="module")
def adapted(plain):
    """The same encoder with freshly initialized adapters."""
    bert, params = plain
    bert = bert.config.with_lora(RANK, ALPHA).make_encoder()
    return bert, {path: params.get(path, x) for path, x in init(bert).items()}


def run_all(bert):
    position = jnp.broadcast_to(jnp.arange(4), IDS.shape)
    return bert.run(bert.embed(IDS, position), SEGMENT, 1, bert.config.num_blocks - 1)


def init(bert):
    params = bert.init(jax.random.key(0), method=run_all)["params"]
    return param_paths.flatten_params(params)


def encode(bert, params):
    variables = {"params": param_paths.unflatten_params(params)}
    return bert.apply(variables, method=run_all)


def test_only_query_and_value_of_every_layer_are_adapted(plain, adapted):
    added = adapted[1].keys() - plain[1].keys()
    assert added == {stem + leaf for stem in ADAPTED for leaf in ("lora_a", "lora_b")}
    for stem in ADAPTED:
        assert adapted[1][stem + "lora_a"].shape == (16, RANK)
        assert adapted[1][stem + "lora_a"].std() > 0.1
        assert not adapted[1][stem + "lora_b"].any()


def test_new_adapters_do_not_change_the_encoder(plain, adapted):
    np.testing.assert_array_equal(encode(*adapted), encode(*plain))


def test_gradients_are_those_of_the_merged_kernel(plain, adapted):
    """W' = W + s A B: dA = s dW' B^T and dB = s A^T dW', in the plain encoder."""
    rng = np.random.default_rng(0)
    scale, (bert, params), merged = ALPHA / RANK, adapted, dict(plain[1])
    params = dict(params)
    for stem in ADAPTED:
        b = rng.normal(size=(RANK, 16)).astype(np.float32) / 4
        params[stem + "lora_b"] = b
        merged[stem + "kernel"] = (
            merged[stem + "kernel"] + scale * params[stem + "lora_a"] @ b
        )
    weight = rng.normal(size=(2, 4, 16)).astype(np.float32)

    def loss(bert):
        return lambda params: (encode(bert, params) * weight).sum()

    got, grads = jax.jit(jax.value_and_grad(loss(bert)))(params)
    want, of_merged = jax.jit(jax.value_and_grad(loss(plain[0])))(merged)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for stem in ADAPTED:
        a, b = params[stem + "lora_a"], params[stem + "lora_b"]
        kernel = of_merged[stem + "kernel"]
        for path, x in (
            (stem + "lora_a", scale * kernel @ b.T),
            (stem + "lora_b", scale * a.T @ kernel),
            (stem + "kernel", kernel),
        ):
            atol = 1e-4 * float(jnp.abs(x).max())
            np.testing.assert_allclose(grads[path], x, atol=atol, err_msg=path)
