"""The text source and its blocks, with an encoder that only this file knows."""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.text.packing import Packing, Tokens
from recjax.models.encoders.huggingface import load_config
from recjax.models.items.text_source import TextSource, block_of, count_frozen_blocks
from tests.conftest import TINY_BERT

pytestmark = pytest.mark.unit


@dataclasses.dataclass(frozen=True)
class StaticConfig:
    """A table of token vectors and no layers: the blocks are embedding and pooling."""

    vocab_size: int = 7
    hidden_size: int = 4
    max_tokens: int = 3
    has_pooler: bool = True
    num_blocks: int = 2

    def block_of(self, path):
        return {"table": 0, "scale": 1}[path.split("/")[0]]

    def with_lora(self, rank, alpha):
        raise NotImplementedError

    def make_encoder(self, dtype, remat_rows):
        return StaticEncoder(self)


class StaticEncoder(nn.Module):
    config: Any

    def setup(self):
        self.table = nn.Embed(self.config.vocab_size, self.config.hidden_size)
        self.scale = self.param("scale", nn.initializers.constant(2.0), ())

    def embed(self, ids_RxL, position_RxL, train=False):
        return self.table(ids_RxL)

    def run(self, states_RxLxE, segment_RxL, start, stop, train=False):
        assert start >= stop == 1  # nothing between the embedding and pooling
        return states_RxLxE

    def pool_states(self, states_RxLxE, packed):
        return self.scale * states_RxLxE[:, -1]


class Packed(NamedTuple):
    index_RxL: np.ndarray
    position_RxL: np.ndarray
    segment_RxL: np.ndarray


class Items(NamedTuple):
    items_U: np.ndarray
    packed: Packed


PATHS = {
    "items/text/encoder/table/embedding": 0,
    "items/text/encoder/scale": 1,
    "items/text/pool/query/kernel": 1,
    "items/text/project/kernel": None,
    "items/text/mlp_0/bias": None,
    "items/id/vectors/embedding": None,
    "head/bias": None,
}


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_any_encoder_behind_the_protocol(frozen):
    encoder = StaticConfig().make_encoder(jnp.float32, 0)
    source = TextSource(encoder, width=3, pooling="pooler", frozen_blocks=frozen)
    index_RxL = np.array([[0, 1, 2], [3, 4, 5]])
    ids_T = np.array([6, 1, 2, 0, 3, 5])
    position_RxL = np.tile(np.arange(3), (2, 1))
    packed = Packed(index_RxL, position_RxL, np.ones((2, 3), int))
    items = Items(np.array([0, 1]), packed)
    variables = source.init(jax.random.key(0), {"ids_T": ids_T}, items, False)
    params = variables["params"]
    assert set(params["encoder"]) == {"table", "scale"}
    table = params["encoder"]["table"]["embedding"]
    kernel = params["project"]["kernel"]
    want = 2 * table[ids_T[index_RxL[:, -1]]] @ kernel
    got = source.apply(variables, {"ids_T": ids_T}, items, True)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    got = source.apply(variables, {"states_TxE": table[ids_T]}, items, True)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("frozen", [0, 1])
def test_tokens_are_left_out_in_training_only(frozen):
    """Also of the output of frozen blocks. First and last tokens are always pooled."""
    encoder = StaticConfig().make_encoder(jnp.float32, 0)
    tokens = Tokens(np.array([6, 1, 2, 0, 3, 5, 4]), np.array([0, 4, 7]))
    packed = Packing(tokens, 8).pack(np.array([0, 1]))
    items = Items(np.array([0, 1]), jax.tree.map(jnp.asarray, packed))
    options = {"width": 3, "pooling": "mean", "frozen_blocks": frozen}
    source = TextSource(encoder, **options, token_dropout=1.0)
    variables = TextSource(encoder, **options).init(
        jax.random.key(0), {"ids_T": tokens.ids}, items, False
    )
    params = variables["params"]
    table = params["encoder"]["table"]["embedding"][tokens.ids]
    arrays = {"states_TxE": table} if frozen else {"ids_T": tokens.ids}
    rngs = {"dropout": jax.random.key(1)}
    for train, kept in ((False, [[0, 1, 2, 3], [4, 5, 6]]), (True, [[0, 3], [4, 6]])):
        means = jnp.stack([table[np.array(rows)].mean(0) for rows in kept])
        got = source.apply(variables, arrays, items, train, rngs=rngs)
        want = means @ params["project"]["kernel"]
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_blocks_of_any_encoder():
    config = StaticConfig()
    assert {path: block_of(path, config) for path in PATHS} == PATHS
    assert count_frozen_blocks(config, PATHS) == 0
    assert count_frozen_blocks(config, list(PATHS)[1:]) == 1
    assert count_frozen_blocks(config, list(PATHS)[3:]) == 2
    assert count_frozen_blocks(None, PATHS) == 0


def test_blocks_of_bert():
    config = load_config(TINY_BERT)
    assert config.num_blocks == 5
    names = "embeddings/word/embedding", "layer_2/mlp_up/bias", "pool/kernel"
    assert [config.block_of(name) for name in names] == [0, 3, 4]
    for name in ("layer_3/mlp_up/bias", "adapter/kernel"):
        with pytest.raises(ValueError, match="not in tuple"):
            config.block_of(name)
