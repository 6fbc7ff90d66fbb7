"""Packs the texts of all items into rows and splits the rows into pieces."""

import math
from typing import Any

from jax.sharding import Mesh

from recjax.data.text.packing import Items, Packing, catalogue_pieces, whole_catalogue
from recjax.data.text.tokenize import Tokens
from recjax.runtime.mesh import row_multiple


def make_packing(tokens: Tokens, config: Any, mesh: Mesh) -> Packing:
    """Returns how a run packs the catalogue's texts.

    Args:
      tokens: texts of all items.
      config: `config.text`.
      mesh: device mesh of the run.
    """
    # A text is never split, so a row is at least as long as the longest text.
    width = max(config.row_tokens, int(tokens.lengths.max()))
    # Rows must divide over the mesh, and into the slices of rematerialisation.
    multiple = math.lcm(row_multiple(mesh), config.remat_rows or 1)
    return Packing(tokens, width, multiple)


def split_catalogue(
    num_items: int, packing: Packing | None, config: Any, mesh: Mesh
) -> list[Items]:
    """Splits the catalogue into pieces of at most `text.rows_per_batch` rows of text.

    Without a packing there are no texts to encode, and one piece holds all items.
    """
    multiple = row_multiple(mesh)
    if packing is None:
        return [whole_catalogue(num_items, None, multiple)]
    return catalogue_pieces(num_items, packing, multiple, config.rows_per_batch)
