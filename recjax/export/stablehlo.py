"""Exports towers as StableHLO, with a symbolic batch, for CPUs and CUDA GPUs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

from recjax.common.errors import UserError
from recjax.common.files import atomic_files, read_bytes, save_tensors, writes_to
from recjax.export.towers import item_tower, user_tower
from recjax.inference.parts import ModelParts

PLATFORMS = ("cpu", "cuda")
USERS, ITEMS = "user_tower", "item_tower"
WEIGHTS = ".safetensors"
PROGRAM = ".stablehlo"


def export_towers(parts: ModelParts, folder: Path) -> list[Path]:
    """Writes both towers, each as a program and its weights; returns the files.

    Raises:
      UserError: `flatbuffers` is not installed.
    """
    config, width = parts.config, parts.vectors.history_NxD.shape[1]
    length, tokens = config.data.history_length, config.text.max_tokens
    (batch,) = jax.export.symbolic_shape("b")
    vectors = jax.ShapeDtypeStruct((batch, length, width), np.float32)
    mask = jax.ShapeDtypeStruct((batch, length), bool)
    inputs = [vectors, mask]
    if config.user_tower.time:
        inputs.append(jax.ShapeDtypeStruct((batch, length), np.int32))
    written = _write(folder / USERS, *user_tower(parts), *inputs)
    if parts.encoder is not None:
        ids = jax.ShapeDtypeStruct((batch, tokens), np.int32)
        mask = jax.ShapeDtypeStruct((batch, tokens), bool)
        written += _write(folder / ITEMS, *item_tower(parts), ids, mask)
    return written


def _write(path: Path, function: Any, params: Any, *inputs: Any) -> list[Path]:
    shapes = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in params.items()}
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(
        shapes, *inputs
    )
    try:
        program = exported.serialize()
    except ImportError:
        raise UserError(
            "export: StableHLO needs the library flatbuffers: pip install "
            "'recjax[export]'"
        ) from None
    files = [path.with_suffix(PROGRAM), path.with_suffix(WEIGHTS)]
    with atomic_files(*files) as (program_file, weights_file):
        with writes_to(files[0]):
            program_file.write_bytes(program)
        with writes_to(files[1]):
            save_tensors(params, weights_file)
    return files


def load_tower(path: Path) -> Callable[..., Any]:
    """Loads a tower that `export_towers` wrote, by the path of its program.

    Raises:
      UserError: a file is missing.
    """
    exported = jax.export.deserialize(bytearray(read_bytes(path)))
    params = load_file(path.with_suffix(WEIGHTS))
    call = jax.jit(exported.call)
    return lambda *inputs: call(params, *inputs)
