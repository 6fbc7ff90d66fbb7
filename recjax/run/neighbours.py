"""Items with similar texts, which may replace each other in training windows."""

from typing import Any

import numpy as np

from recjax.catalogue.arrays import CatalogueBuilder
from recjax.catalogue.whitening import whiten
from recjax.common.param_paths import FlatParams
from recjax.common.vectors import unit_vectors
from recjax.data.dataset import Data, count_events
from recjax.models.recommender import Recommender
from recjax.run.references import WHITENING_POWER

CHUNK_SIZE = 1024  # items that are compared with all others at a time


def find_neighbours(
    config: Any,
    data: Data,
    model: Recommender,
    params: FlatParams,
    catalogue: CatalogueBuilder,
) -> np.ndarray | None:
    """Returns neighbours_NxK by text of the items with training events.

    Items without training events are no neighbours: what is learned must not depend on
    items that are held out.

    Args:
      config: `config.augment`; the result is None without `substitute`.
      data: the data set.
      model: the model.
      params: its parameters, with the pretrained encoder.
      catalogue: encodes the texts of all items.
    """
    if not config.substitute:
        return None
    if catalogue.placeholder is not None:  # a dry run encodes nothing
        items_N = np.arange(data.num_items)
        return (items_N[:, None] + 1 + np.arange(config.neighbours)) % data.num_items
    vectors_NxE = catalogue.text_vectors(model, params)
    white_NxE = whiten(vectors_NxE, WHITENING_POWER)
    return nearest_items(white_NxE, count_events(data) > 0, config.neighbours)


def nearest_items(vectors_NxE: np.ndarray, allowed_N: np.ndarray, k: int) -> np.ndarray:
    """Returns neighbours_NxK: the nearest items by cosine, without the item itself.

    Only allowed items have neighbours, and are neighbours. Where an item has fewer than
    K, its own index fills the row.
    """
    neighbours_NxK = np.tile(np.arange(len(vectors_NxE))[:, None], k)
    (allowed,) = np.nonzero(allowed_N)
    unit_VxE = unit_vectors(vectors_NxE[allowed])
    k = min(k, len(allowed) - 1)
    for start in range(0, len(allowed) if k > 0 else 0, CHUNK_SIZE):
        rows = np.arange(start, min(start + CHUNK_SIZE, len(allowed)))
        distance_CxV = -unit_VxE[rows] @ unit_VxE.T
        distance_CxV[np.arange(len(rows)), rows] = np.inf
        nearest_CxK = np.argpartition(distance_CxV, k - 1, axis=1)[:, :k]
        neighbours_NxK[allowed[rows], :k] = allowed[nearest_CxK]
    return neighbours_NxK
