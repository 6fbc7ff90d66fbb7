"""The catalogue's arrays on the devices: tokens, or what frozen blocks make of them."""

from typing import Any

import jax
import numpy as np

from recjax import trees
from recjax.data.batches import Packing
from recjax.models.prefix import compute_prefix
from recjax.models.recommender import Recommender
from recjax.run import Run
from recjax.steps import Compiled


def make_catalogue(
    r: Run, model: Recommender, params: trees.Flat, blocks: int
) -> tuple[Any, Packing | None]:
    """Per source, the arrays of all items on the devices; and how to pack texts.

    With frozen blocks the text source gets their output; with only frozen blocks
    nothing is left to pack.
    """
    if r.tokens is None:
        return {}, None
    arrays: dict[str, np.ndarray] = {"ids_T": r.tokens.ids}
    if blocks:
        arrays = encode_prefix(r, model, params, blocks)
        ((name, array),) = arrays.items()
        assert model.encoder_config is not None
        r.reporter.say(
            f"frozen prefix: {blocks} of {model.encoder_config.num_hidden_layers + 2} "
            f"blocks, computed once as {name} ({array.nbytes / 2**20:.1f} MiB)"
        )
    packing = None if "vectors_NxE" in arrays else r.packing()
    return r.put_whole({"text": arrays}), packing


def encode_prefix(
    r: Run, model: Recommender, params: trees.Flat, blocks: int
) -> dict[str, np.ndarray]:
    """Output of the text encoder's first `blocks` blocks for the whole catalogue."""
    packing = r.packing()
    chunks = r.chunks(packing)
    ids = r.put_whole({"text": {"ids_T": packing.tokens.ids}})
    text = {path: x for path, x in params.items() if path.startswith(trees.TEXT)}
    assert model.encoder_config is not None

    def encode(flat: trees.Flat, packed: Any) -> jax.Array:
        variables = {"params": trees.unflatten(flat)}
        return model.apply(
            variables, ids, packed, blocks, method=Recommender.encode_prefix
        )

    def pool(flat: trees.Flat, states: jax.Array, packed: Any) -> jax.Array:
        variables = {"params": trees.unflatten(flat)}
        return model.apply(variables, states, packed, method=Recommender.pool_text)

    encode_fn = Compiled("encoder", encode, r.reporter.say)
    pool_fn = Compiled("pooling", pool, r.reporter.say)
    bar = r.reporter.bar(r.data.num_items, 0, "encoding items", "item")
    out = compute_prefix(
        lambda packed: encode_fn(text, packed),
        lambda states, packed: pool_fn(text, states, packed),
        ((chunk.rows_U, r.put(chunk.packed)) for chunk in chunks),
        advance=bar.update,
        blocks=blocks,
        layers=model.encoder_config.num_hidden_layers,
        num_tokens=len(packing.tokens.ids),
        num_items=r.data.num_items,
    )
    bar.close()
    return out
