"""The user tower and the item tower as pure functions of flat parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, unflatten_params
from recjax.inference.item_encoder import (
    NEW,
    finish_items,
    item_params,
    pool_texts,
)
from recjax.inference.parts import EVENTS, ModelParts
from recjax.models.encoders.huggingface import load_config
from recjax.models.recommender import Recommender, make_model

Tower = tuple[Callable[..., Any], FlatParams]  # the function, and its parameters


def user_tower(parts: ModelParts) -> Tower:
    """Returns the user tower: histories to queries.

    The function takes `params`, `history_vectors` (B x H x D, the vectors of the items
    of each history, oldest first and padded on the left) and `mask` (B x H, False at
    padding), and returns `queries` (B x D). A score is the dot product of a query and
    the vector of an item plus the bias of the item. With `user_tower.time` it also
    takes `times` (B x H, int32, see `pad_times`).

    Raises:
      UserError: the model marks repeated items, which needs their ids.
    """
    encoder = None if parts.encoder is None else load_config(parts.encoder)
    model = make_model(parts.config, parts.num_items, encoder)
    if model.repeat is not None:
        raise UserError(
            "export: a model with user_tower.repeats reads ids, and its user tower "
            "cannot be exported alone"
        )
    names = ("users/", "head/")
    params = {p: np.asarray(x) for p, x in parts.params.items() if p.startswith(names)}

    def queries(params: Any, history_BxHxD: Any, mask_BxH: Any, *times: Any) -> Any:
        # The vectors are looked up by the position in one table of all histories.
        flat_TxD = history_BxHxD.reshape(-1, history_BxHxD.shape[-1])
        index_BxH = jnp.arange(mask_BxH.size).reshape(mask_BxH.shape)
        return model.apply(
            {"params": unflatten_params(params)},
            flat_TxD,
            index_BxH,
            mask_BxH,
            *times,
            method=Recommender.user_queries,
        )

    return _in_float32(queries), params


def item_tower(parts: ModelParts, batch: int | None = None) -> Tower:
    """Returns the item tower: tokens of new items to vectors and biases.

    The function takes `params`, `ids` (U x L token ids, padded on the right) and `mask`
    (U x L, False at padding), and returns `candidates` (U x D), `history_vectors`
    (U x D) and `bias` (U), as for an item without an id, see `ItemEncoder`.

    Args:
      parts: the model.
      batch: U, if it is fixed; None allows any.

    Raises:
      UserError: the model reads ids alone.
    """
    if parts.encoder is None:
        raise UserError("export: a model of ids alone has no item tower to export")
    size = batch or 1
    encoder = load_config(parts.encoder)
    model = make_model(parts.config, size, encoder)
    new_U, events_N = np.full(size, NEW), parts.items[EVENTS].to_numpy()
    params = {
        path: np.asarray(x)
        for path, x in item_params(parts.params, new_U, events_N).items()
        if path.startswith(("items/", "head/"))
    }
    whitening = parts.whitening
    if whitening is not None:
        params["whitening/mean"] = whitening.mean_E.astype(np.float32)
        params["whitening/map"] = whitening.map_ExE.astype(np.float32)

    def encode(params: Any, ids_UxL: Any, mask_UxL: Any) -> Any:
        """Encodes `size` items."""
        nested = unflatten_params(params)
        vectors_UxE = pool_texts(model, nested, ids_UxL, mask_UxL)
        if whitening is not None:
            centred_UxE = vectors_UxE - params["whitening/mean"][None]
            vectors_UxE = centred_UxE @ params["whitening/map"]
        history_UxD, candidates_UxD, bias_U = finish_items(model, nested, vectors_UxE)
        # ONNX names each output, so that two of them must not be one value.
        return candidates_UxD, history_UxD * 1.0, bias_U

    def encode_one(params: Any, ids_L: Any, mask_L: Any) -> Any:
        return jax.tree.map(lambda x: x[0], encode(params, ids_L[None], mask_L[None]))

    def any_batch(params: Any, ids_UxL: Any, mask_UxL: Any) -> Any:
        return jax.vmap(encode_one, (None, 0, 0))(params, ids_UxL, mask_UxL)

    return _in_float32(encode if batch else any_batch), params


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Computes products in float32 on devices that would round them."""

    def call(*args: Any) -> Any:
        with jax.default_matmul_precision("float32"):
            return function(*args)

    return call
