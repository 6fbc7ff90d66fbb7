"""Categories of the items, for a loss that predicts that of the next item."""

import warnings
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

from recjax.catalogue.arrays import CatalogueBuilder
from recjax.catalogue.whitening import whiten
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams
from recjax.common.vectors import unit_vectors
from recjax.data.dataset import Data
from recjax.models.objectives import CATEGORY
from recjax.models.recommender import Recommender
from recjax.run.references import WHITENING_POWER

ITERATIONS = 20


def item_categories(
    config: Any,
    data: Data,
    model: Recommender,
    params: FlatParams,
    catalogue: CatalogueBuilder,
) -> np.ndarray | None:
    """Returns category_N, from 0; None if no loss reads categories.

    Args:
      config: the config of the run.
      data: the data set.
      model: the model.
      params: its parameters, with the pretrained encoder.
      catalogue: encodes the texts of all items.

    Raises:
      UserError: the items have no such column.
    """
    loss = config.loss
    if CATEGORY not in loss.auxiliary:
        return None
    if loss.category:
        return column_categories(data, loss.category, loss.num_categories)
    if catalogue.placeholder is not None:  # a dry run encodes nothing
        return np.zeros(data.num_items, np.int32)
    vectors_NxE = whiten(catalogue.text_vectors(model, params), WHITENING_POWER)
    return cluster(vectors_NxE, loss.num_categories, config.seed)


def column_categories(data: Data, column: str, size: int) -> np.ndarray:
    """Numbers the values of a column by frequency: category_N below `size`.

    The last category has all rarer values together.

    Raises:
      UserError: the items have no such column.
    """
    if column not in data.items.columns:
        known = ", ".join(data.items.columns)
        raise UserError(f"loss.category: {column!r} is not a column of items: {known}")
    values = data.items[column].to_numpy()
    _, value_N, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    category_N: np.ndarray = np.argsort(order)[value_N]
    return np.minimum(category_N, size - 1).astype(np.int32)


def cluster(vectors_NxE: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Clusters directions by k-means: category_N below `size`."""
    unit_NxE = unit_vectors(vectors_NxE)
    # Equal texts can have vectors that differ in their last bits.
    distinct = len(np.unique(unit_NxE.round(4), axis=0))
    with warnings.catch_warnings():
        # A cluster that loses all its items does no harm.
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        _, category_N = kmeans2(
            unit_NxE, min(size, distinct), ITERATIONS, minit="++", seed=seed
        )
    return np.asarray(category_N, np.int32)
