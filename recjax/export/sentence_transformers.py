"""Writes the fine-tuned text encoder as a sentence-transformers directory."""

import json
import re
import shutil
from pathlib import Path

import numpy as np

from recjax.common.errors import UserError
from recjax.common.files import read_json, save_tensors, writes_to
from recjax.common.param_paths import FlatParams
from recjax.config.base import ENCODER
from recjax.inference.files import SETTINGS
from recjax.inference.parts import ModelParts
from recjax.models.encoders.base import Weights
from recjax.models.encoders.huggingface import MODEL_TYPES

WEIGHTS = "model.safetensors"
POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


def export_encoder(parts: ModelParts, folder: Path) -> list[Path]:
    """Writes the encoder, its tokenizer and its pooling; returns the files.

    The vectors are those that the item tower reads: before whitening and projection.

    Raises:
      UserError: there is no encoder, or its pooling has no counterpart.
    """
    if parts.encoder is None:
        raise UserError("export: a model of ids alone has no text encoder")
    pooling = parts.config.item_tower.pooling
    if pooling not in POOLINGS:
        known = " or ".join(POOLINGS)
        raise UserError(
            f"export: sentence-transformers has no {pooling!r} pooling as this model "
            f"has it; train with item_tower.pooling {known}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in SETTINGS:
        if (parts.encoder / name).is_file():
            shutil.copyfile(parts.encoder / name, folder / name)
    raw = read_json(parts.encoder / "config.json")
    params = {
        path.removeprefix(ENCODER): np.asarray(x)
        for path, x in parts.params.items()
        if path.startswith(ENCODER)
    }
    text = parts.config.text
    params = merge_lora(params, text.lora_rank, text.lora_alpha)
    weights = MODEL_TYPES[raw["model_type"]].weights
    tensors = dict(their_weight(weights, path, x) for path, x in params.items())
    with writes_to(folder / WEIGHTS):
        save_tensors(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    width = parts.params[ENCODER + "embeddings/word/embedding"].shape[1]
    pool = {"word_embedding_dimension": int(width)}
    pool |= {key: name == pooling for name, key in POOLINGS.items()}
    library = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{library}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{library}.Pooling"},
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    for name, content in {
        "modules.json": modules,
        "1_Pooling/config.json": pool,
        "sentence_bert_config.json": {
            "max_seq_length": text.max_tokens,
            "do_lower_case": False,
        },
    }.items():
        with writes_to(folder / name):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def merge_lora(params: FlatParams, rank: int, alpha: float) -> FlatParams:
    """Adds the low-rank adapters to the kernels that they adapt."""
    merged = {path: x for path, x in params.items() if "/lora_" not in path}
    for path, lora_a in params.items():
        module, found, leaf = path.rpartition("/lora_")
        if found and leaf == "a":
            update = alpha / rank * (lora_a @ params[f"{module}/lora_b"])
            merged[f"{module}/kernel"] = merged[f"{module}/kernel"] + update
    return merged


def their_weight(
    weights: Weights, path: str, value: np.ndarray
) -> tuple[str, np.ndarray]:
    """Returns Hugging Face's name and layout of a parameter of the encoder."""
    stem, _, leaf = path.rpartition("/")
    for pattern, module, leaves in weights:
        found = re.fullmatch(re.escape(module).replace(r"\{\}", r"(\d+)"), stem)
        if found is None:
            continue
        name = next(theirs for theirs, ours in leaves.items() if ours == leaf)
        stem = pattern.replace(r"(\d+)", "{}").replace("\\", "").format(*found.groups())
        # PyTorch stores a dense layer's matrix as outputs x inputs.
        value = value.T if leaf == "kernel" else value
        return f"{stem}.{name}", np.ascontiguousarray(value, np.float32)
    raise AssertionError(path)
