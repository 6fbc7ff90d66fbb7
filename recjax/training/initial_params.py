"""Initial parameters: random towers, and the encoder's of its file or random."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh

from recjax.common.param_paths import TEXT_PARAMS, FlatParams, flatten_params
from recjax.data.batching.types import Batch
from recjax.data.text.packing import Items, pack
from recjax.data.text.tokenize import Tokens
from recjax.models.encoders.huggingface import load_params
from recjax.models.recommender import Recommender
from recjax.runtime.compiler import Compiler
from recjax.runtime.mesh import param_shardings, place


class InitTrace(NamedTuple):
    """A model's initialisation, not yet run: key -> values in the order of `shapes`."""

    jaxpr: Any
    shapes: dict[str, jax.ShapeDtypeStruct]


def trace_init(config: Any, model: Recommender) -> InitTrace:
    """Paths and shapes of all parameters, and how they are drawn.

    Done once: of a deep encoder it takes longer than all else here.
    """
    smallest = dummy_inputs(config.data.history_length)

    def init(key: jax.Array) -> FlatParams:
        return flatten_params(model.init(key, *smallest)["params"])

    key = jax.random.key(config.seed)
    return InitTrace(*jax.make_jaxpr(init, return_shape=True)(key))


def init_params(
    config: Any,
    traced: InitTrace,
    encoder_dir: Path | None,
    mesh: Mesh,
    compiler: Compiler,
) -> FlatParams:
    """Random towers and the pretrained encoder, as a flat dict on the devices.

    The encoder's random weights are computed only where `text.pretrained` is False:
    XLA drops what is not returned.

    Raises:
      UserError: weights that do not fit the encoder's config.
    """
    jaxpr, shapes = traced
    stem = TEXT_PARAMS + "encoder/"
    flat: FlatParams = {}
    if encoder_dir is not None and config.text.pretrained:
        expected = {
            path[len(stem) :]: x
            for path, x in shapes.items()
            if path.startswith(stem) and "/lora_" not in path  # ours, in no file
        }
        weights = load_params(encoder_dir, expected)
        flat = {stem + path: x for path, x in weights.items()}

    def init_rest(key: jax.Array) -> FlatParams:
        values = zip(sorted(shapes), jaxpr_as_fun(jaxpr)(key), strict=True)
        return {path: x for path, x in values if path not in flat}

    flat |= compiler("init", init_rest)(jax.random.key(config.seed))
    flat = {path: flat[path] for path in shapes}
    shardings = param_shardings(flat, mesh, config.mesh.rules)
    return place(flat, shardings)


class DummyInputs(NamedTuple):
    """The smallest input that shows a model all its shapes."""

    catalogue: dict[str, Any]
    batch: Batch


def dummy_inputs(history_length: int) -> DummyInputs:
    """One user, one item of one token."""
    tokens = Tokens(np.zeros(1, np.int32), np.array([0, 1]))
    items_U = np.zeros(1, np.int32)
    items = Items(items_U, np.zeros(1, np.float32), pack(tokens, items_U, width=1))
    history_BxH = np.zeros((1, history_length), np.int32)
    one_P = np.zeros(1, np.int32)
    mask_BxH = history_BxH == 0
    batch = Batch(history_BxH, mask_BxH, mask_BxH, one_P, one_P, None, None, items)
    return DummyInputs({"text": {"ids_T": jnp.zeros(1, jnp.int32)}}, batch)
