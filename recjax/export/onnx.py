"""Exports towers as ONNX by the library jax2onnx, with fixed shapes."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from recjax.common.errors import UserError
from recjax.common.files import atomic_files
from recjax.export.stablehlo import ITEMS, USERS
from recjax.export.towers import item_tower, user_tower
from recjax.inference.parts import ModelParts


def export_towers(parts: ModelParts, folder: Path, batch: int) -> list[Path]:
    """Writes both towers as ONNX models with their weights; returns the files.

    The shapes are fixed: jax2onnx 0.17 cannot convert these towers with a symbolic
    batch.

    Args:
      parts: the model.
      folder: the directory for the files.
      batch: number of users, or items, of a call.

    Raises:
      UserError: jax2onnx is not installed.
    """
    config, width = parts.config, parts.vectors.history_NxD.shape[1]
    length, tokens = config.data.history_length, config.text.max_tokens
    shape = (batch, length)
    written = [
        _write(
            folder / f"{USERS}.onnx",
            *user_tower(parts),
            {"history_vectors": ((*shape, width), np.float32), "mask": (shape, bool)},
            ["queries"],
        )
    ]
    if parts.encoder is not None:
        shape = (batch, tokens)
        written.append(
            _write(
                folder / f"{ITEMS}.onnx",
                *item_tower(parts, batch),
                {"ids": (shape, np.int32), "mask": (shape, bool)},
                ["candidates", "history_vectors", "bias"],
            )
        )
    return written


def _write(
    path: Path,
    function: Any,
    params: Any,
    inputs: dict[str, tuple[tuple[int, ...], Any]],
    outputs: list[str],
) -> Path:
    try:
        from jax2onnx import to_onnx
    except ImportError:
        raise UserError(
            "export: ONNX needs the library jax2onnx: pip install 'recjax[onnx]'"
        ) from None
    import jax

    # The weights are constants of the ONNX model.
    placed = {name: jnp.asarray(x) for name, x in params.items()}
    shapes = [jax.ShapeDtypeStruct(*each) for each in inputs.values()]
    with atomic_files(path) as (part,):
        to_onnx(
            lambda *arrays: function(placed, *arrays),
            inputs=shapes,
            input_names=list(inputs),
            output_names=outputs,
            return_mode="file",
            output_path=str(part),
        )
    return path
