"""Exports towers as ONNX by the library jax2onnx."""

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.common.errors import UserError, first_line
from recjax.common.files import atomic_files
from recjax.common.param_paths import FlatParams
from recjax.export.stablehlo import ITEMS, USERS
from recjax.export.towers import item_tower, user_tower
from recjax.inference.parts import ModelParts

SYMBOLIC = "B"  # a batch of any size
Inputs = dict[str, tuple[tuple[int | str, ...], Any]]  # shapes and dtypes by name


def export_towers(parts: ModelParts, folder: Path, batch: int) -> list[Path]:
    """Writes both towers as ONNX models with their weights; returns the files.

    The user tower takes any number of users. The batch of the item tower is fixed:
    jax2onnx 0.17 has no batching rule for its embeddings.

    Args:
      parts: the model.
      folder: the directory for the files.
      batch: number of items of a call.

    Raises:
      UserError: jax2onnx is not installed, or cannot convert a tower.
    """
    config, width = parts.config, parts.vectors.history_NxD.shape[1]
    histories = SYMBOLIC, config.data.history_length
    inputs: Inputs = {
        "history_vectors": ((*histories, width), np.float32),
        "mask": (histories, bool),
    }
    if config.user_tower.time:
        inputs["times"] = histories, np.int32
    users = folder / f"{USERS}.onnx"
    _write(users, *user_tower(parts), inputs, ["queries"])
    if parts.encoder is None:
        return [users]
    texts = batch, config.text.max_tokens
    inputs = {"ids": (texts, np.int32), "mask": (texts, bool)}
    outputs = ["candidates", "history_vectors", "bias"]
    items = folder / f"{ITEMS}.onnx"
    _write(items, *item_tower(parts, batch), inputs, outputs)
    return [users, items]


def _write(
    path: Path,
    function: Callable[..., Any],
    params: FlatParams,
    inputs: Inputs,
    outputs: list[str],
) -> None:
    try:
        from jax2onnx import to_onnx
    except (ImportError, AttributeError) as e:  # missing, or made for another JAX
        raise UserError(
            f"export: ONNX needs jax2onnx ({first_line(e)[:200]}): pip install "
            "jax2onnx onnxruntime, in an environment of its own"
        ) from None
    # The weights are constants of the ONNX model.
    placed = {name: jnp.asarray(x) for name, x in params.items()}
    shapes = [jax.ShapeDtypeStruct(*each) for each in inputs.values()]
    try:
        with atomic_files(path) as (part,), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about types that it converts
            to_onnx(
                lambda *arrays: function(placed, *arrays),
                inputs=shapes,
                input_names=list(inputs),
                output_names=outputs,
                return_mode="file",
                output_path=str(part),
            )
            _check_loads(part)
    except (OSError, MemoryError):
        raise
    except Exception as e:  # operations that it does not know, in many types
        raise UserError(
            f"export: jax2onnx cannot convert the {path.stem} "
            f"({first_line(e)[:200]}); use --to=stablehlo"
        ) from None


def _check_loads(path: Path) -> None:
    """Loads a model by ONNX Runtime, if it is installed, which checks its types."""
    if find_spec("onnxruntime") is not None:
        import_module("onnxruntime").InferenceSession(str(path))
