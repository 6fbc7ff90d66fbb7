"""Initial parameters with which a model ranks as the text similarity does."""

from typing import Any

import numpy as np

from recjax.catalogue.arrays import CatalogueBuilder
from recjax.catalogue.whitening import fit_whitening
from recjax.common.param_paths import TEXT_PARAMS, FlatParams
from recjax.models.recommender import Recommender
from recjax.runtime.mesh import place

KERNEL, BIAS = TEXT_PARAMS + "project/kernel", TEXT_PARAMS + "project/bias"


def set_projection(
    model: Recommender, params: FlatParams, catalogue: CatalogueBuilder, config: Any
) -> FlatParams:
    """Returns the parameters with `whitening_projection` as the projection of texts.

    Args:
      model: the model; a pooling that has to be learned is replaced by the mean.
      params: its parameters, with the pretrained encoder.
      catalogue: encodes the texts of all items.
      config: `config.item_tower`.
    """
    if catalogue.placeholder is not None:  # a dry run encodes nothing
        return params
    vectors_NxE = catalogue.text_vectors(model, params)
    values = whitening_projection(vectors_NxE, config.width, config.init_whitening)
    projection = dict(zip((KERNEL, BIAS), values, strict=True))
    shardings = {path: params[path].sharding for path in projection}
    return {**params, **place(projection, shardings)}


def whitening_projection(
    vectors_NxE: np.ndarray, width: int, power: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel_ExD and bias_D of a linear map that whitens vectors.

    At the width E of the vectors it is the symmetric map of `fit_whitening`. Below, it
    keeps the principal components with the largest variance. The root mean square of
    the lengths of its results is 1.
    """
    mean_E, map_ExE = fit_whitening(vectors_NxE, power)
    centred_NxE = vectors_NxE - mean_E
    if width < len(mean_E):
        _, axes_ExE = np.linalg.eigh(centred_NxE.T @ centred_NxE)  # smallest first
        map_ExE = map_ExE @ axes_ExE[:, ::-1][:, :width]
    length = np.sqrt(np.mean(np.sum((centred_NxE @ map_ExE) ** 2, axis=1)))
    kernel_ExD = map_ExE / length
    return kernel_ExD.astype(np.float32), (-mean_E @ kernel_ExD).astype(np.float32)
