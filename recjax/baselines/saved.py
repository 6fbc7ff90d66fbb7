"""Fitted baselines as arrays and JSON values, without pickle."""

from typing import Any

import numpy as np
from scipy import sparse

from recjax.baselines import BASELINES, TEXT, Baseline
from recjax.baselines.text import TextSimilarity
from recjax.baselines.transitions import Rule
from recjax.common.errors import UserError

Arrays = dict[str, np.ndarray]
CSR = ("data", "indices", "indptr", "shape")  # the arrays of a sparse matrix
# State of fitting, which scoring does not read.
NOT_SAVED = ("rng", "model", "_")


def baseline_state(baseline: Any) -> tuple[Arrays, dict[str, Any]]:
    """Returns the arrays of a fitted baseline by attribute, and its JSON values."""
    arrays: Arrays = {}
    values: dict[str, Any] = {}
    for name, value in vars(baseline).items():
        if name in NOT_SAVED:
            continue
        if sparse.issparse(value):
            parts = value.data, value.indices, value.indptr, np.array(value.shape)
            for part, array in zip(CSR, parts, strict=True):
                arrays[f"{name}.{part}"] = array
        elif isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            values[name] = list(value) if isinstance(value, Rule) else value
    return arrays, values


def restore_baseline(name: str, arrays: Arrays, values: dict[str, Any]) -> Baseline:
    """Returns a fitted baseline from its `baseline_state`.

    Raises:
      UserError: there is no such baseline, or it cannot be saved.
    """
    if name == TEXT:
        baseline: Any = TextSimilarity.__new__(TextSimilarity)
    elif name in BASELINES and name != "random":
        kind: Any = BASELINES[name]
        kind = getattr(kind, "func", kind)  # of a partial
        baseline = kind.__new__(kind)
    else:
        raise UserError(f"{name!r} is not a baseline that can be saved")
    for attribute, value in values.items():
        setattr(baseline, attribute, Rule(*value) if attribute == "rule" else value)
    for key, array in arrays.items():
        attribute, _, part = key.partition(".")
        if not part:
            setattr(baseline, attribute, array)
        elif part == "data":
            data, indices, indptr, shape = (arrays[f"{attribute}.{x}"] for x in CSR)
            matrix = sparse.csr_array((data, indices, indptr), tuple(shape.tolist()))
            setattr(baseline, attribute, matrix)
    found: Baseline = baseline
    return found
