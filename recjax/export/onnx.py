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

    The user tower takes any number of users, unless jax2onnx can only convert it with a
    fixed batch. The batch of the item tower is fixed: jax2onnx 0.17 has no batching
    rule for its embeddings.

    Args:
      parts: the model.
      folder: the directory for the files.
      batch: number of items, or users, of a call where it is fixed.

    Raises:
      UserError: jax2onnx is not installed, or cannot convert a tower.
    """
    if find_spec("jax2onnx") is None:
        raise UserError(
            "export: ONNX needs jax2onnx: pip install jax2onnx onnxruntime, in an "
            "environment of its own"
        )
    config, width = parts.config, parts.vectors.history_NxD.shape[1]
    length, tokens = config.data.history_length, config.text.max_tokens

    def user_inputs(users: int | str) -> Inputs:
        return {
            "history_vectors": ((users, length, width), np.float32),
            "mask": ((users, length), bool),
        }

    variants = [user_inputs(SYMBOLIC), user_inputs(batch)]
    path = folder / f"{USERS}.onnx"
    _write(path, *user_tower(parts), variants, ["queries"])
    if parts.encoder is None:
        return [path]
    shape = batch, tokens
    inputs: Inputs = {"ids": (shape, np.int32), "mask": (shape, bool)}
    outputs = ["candidates", "history_vectors", "bias"]
    items = folder / f"{ITEMS}.onnx"
    _write(items, *item_tower(parts, batch), [inputs], outputs)
    return [path, items]


def _write(
    path: Path,
    function: Callable[..., Any],
    params: FlatParams,
    variants: list[Inputs],
    outputs: list[str],
) -> None:
    """Writes the first of several variants that can be converted and loaded."""
    try:
        from jax2onnx import to_onnx
    except (ImportError, AttributeError) as e:  # made for other versions of JAX
        raise UserError(
            f"export: jax2onnx cannot be imported ({first_line(e)[:200]}); install it "
            "into an environment of its own"
        ) from None
    # The weights are constants of the ONNX model.
    placed = {name: jnp.asarray(x) for name, x in params.items()}
    problem = ""
    for inputs in variants:
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
            return
        except (OSError, MemoryError):
            raise
        except Exception as e:  # operations that it does not know, in many types
            problem = first_line(e)[:200]
    raise UserError(
        f"export: jax2onnx cannot convert the {path.stem} ({problem}); use "
        "--to=stablehlo"
    )


def _check_loads(path: Path) -> None:
    """Loads a model by ONNX Runtime, if it is installed, which checks its types."""
    if find_spec("onnxruntime") is not None:
        import_module("onnxruntime").InferenceSession(str(path))
