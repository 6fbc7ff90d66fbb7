"""Initial parameters: random towers, and a pretrained or random encoder."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh

from recjax.common.param_paths import TEXT_PARAMS, FlatParams, flatten_params
from recjax.data.batching.types import Batch
from recjax.data.text.packing import Items, Packing, Tokens
from recjax.models.encoders.huggingface import load_params
from recjax.models.recommender import Recommender
from recjax.runtime.compiler import Compiler
from recjax.runtime.mesh import param_shardings, place

ENCODER = TEXT_PARAMS + "encoder/"


class InitTrace(NamedTuple):
    """A traced initialisation; `jaxpr` maps a key to the values, sorted by path."""

    jaxpr: Any
    shapes: dict[str, jax.ShapeDtypeStruct]


class DummyInputs(NamedTuple):
    """Inputs from which a model infers the shapes of all its parameters."""

    catalogue: dict[str, Any]
    batch: Batch


def trace_init(config: Any, model: Recommender) -> InitTrace:
    """Traces the initialisation, with the paths and shapes of all parameters.

    Tracing a deep encoder takes longer than everything else here, so it is done once.
    """
    inputs = dummy_inputs(config.data.history_length)

    def init(key: jax.Array) -> FlatParams:
        return flatten_params(model.init(key, *inputs)["params"])

    key = jax.random.key(config.seed)
    return InitTrace(*jax.make_jaxpr(init, return_shape=True)(key))


def init_params(
    config: Any,
    trace: InitTrace,
    encoder_dir: Path | None,
    mesh: Mesh,
    compiler: Compiler,
) -> FlatParams:
    """Draws the towers, loads the encoder, and places all parameters on the devices.

    Args:
      config: the config of the run.
      trace: the traced initialisation of the model.
      encoder_dir: directory of the pretrained encoder; None without a text source.
      mesh: the mesh of the run.
      compiler: the compiler of the run.

    Raises:
      UserError: weights that do not fit the encoder's config.
    """
    jaxpr, shapes = trace
    loaded = _load_encoder(config, shapes, encoder_dir)

    def init_rest(key: jax.Array) -> FlatParams:
        # XLA drops what is not returned: loaded weights are never drawn.
        values = zip(sorted(shapes), jaxpr_as_fun(jaxpr)(key), strict=True)
        return {path: x for path, x in values if path not in loaded}

    drawn = compiler("init", init_rest)(jax.random.key(config.seed))
    params = {**loaded, **drawn}
    params = {path: params[path] for path in shapes}
    return place(params, param_shardings(params, mesh, config.mesh.rules))


def _load_encoder(
    config: Any, shapes: FlatParams, encoder_dir: Path | None
) -> FlatParams:
    """Reads the pretrained weights; empty if there are none to read."""
    if encoder_dir is None or not config.text.pretrained:
        return {}
    expected = {
        path.removeprefix(ENCODER): x
        for path, x in shapes.items()
        if path.startswith(ENCODER) and "/lora_" not in path  # added by recjax
    }
    weights = load_params(encoder_dir, expected)
    return {ENCODER + path: x for path, x in weights.items()}


def dummy_inputs(history_length: int) -> DummyInputs:
    """Builds the smallest inputs: one user, one item of one token."""
    tokens = Tokens(np.zeros(1, np.int32), np.array([0, 1]))
    items_U = np.zeros(1, np.int32)
    items = Items(items_U, np.zeros(1, np.float32), Packing(tokens, 1).pack(items_U))
    history_BxH = np.zeros((1, history_length), np.int32)
    one_P = np.zeros(1, np.int32)
    mask_BxH = history_BxH == 0
    batch = Batch(
        history_BxH,
        mask_BxH,
        mask_BxH,
        one_P,
        one_P,
        None,
        None,
        items,
        liked_BxH=history_BxH,
    )
    return DummyInputs({"text": {"ids_T": jnp.zeros(1, jnp.int32)}}, batch)
