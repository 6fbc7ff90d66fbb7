"""The files of an encoder's directory, and what to do if one is not there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recjax.common.errors import UserError
from recjax.common.files import LFS_POINTER, file_sha256, read_json, sha256

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
INDEX = WEIGHTS + ".index.json"  # of weights in several files
SETTINGS = (CONFIG, TOKENIZER, "tokenizer_config.json")
MODULES = "modules.json"  # of sentence-transformers
# What may be there instead of a file, and the class of transformers that converts it.
INSTEAD = {
    TOKENIZER: ("AutoTokenizer", ("vocab.txt", "vocab.json", "*.model")),
    WEIGHTS: ("AutoModel", ("pytorch_model*.bin", "*.h5", "*.msgpack", "*.onnx")),
}


def transformer_folder(folder: Path) -> Path:
    """Returns the part of a sentence-transformers directory that has the encoder.

    Older ones have it in a directory of its own, which `modules.json` names.

    Raises:
      UserError: `modules.json` is damaged.
    """
    if (folder / CONFIG).is_file() and (folder / TOKENIZER).is_file():
        return folder
    for kind, module in _modules(folder):
        if kind == "Transformer" and (module / CONFIG).is_file():
            return module
    return folder


def find_file(folder: Path, name: str) -> Path:
    """Returns the path of a file that has to be there.

    Raises:
      UserError: it is not; names what is there instead, and the remedy.
    """
    path = folder / name
    if path.is_file():
        return path
    auto, patterns = INSTEAD.get(name, ("", ()))
    for pattern in patterns:
        if found := sorted(folder.glob(pattern)):
            call = f"A.from_pretrained('{folder}').save_pretrained('{folder}')"
            command = f'python -c "from transformers import {auto} as A; {call}"'
            raise UserError(
                f"{path}: no such file, but {found[0].name}; convert it, with the "
                f"library transformers: {command}"
            )
    raise UserError(f"{path}: no such file")


def weight_files(folder: Path) -> list[Path]:
    """Returns the files with the weights: one, or those that an index lists.

    Raises:
      UserError: a file is missing, or is not what its name says.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        files = [find_file(folder, WEIGHTS)]
    else:
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not all(map(_is_name, names.values())):
            raise UserError(f"{index}: no weight_map with names of files")
        files = [find_file(folder, name) for name in sorted(set(names.values()))]
    for path in files:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError(f"{path}: is a pointer of Git LFS; run git lfs pull")
    return files


def settings_digest(folder: Path) -> str:
    """Returns 12 hexadecimal digits that identify the config and the tokenizer."""
    files = [folder / name for name in SETTINGS]
    digests = [file_sha256(path) if path.is_file() else "" for path in files]
    return sha256(" ".join(digests))[:12]


def weights_digest(folder: Path) -> str:
    """Returns 12 hexadecimal digits that identify the bytes of the weights."""
    digests = [file_sha256(path) for path in weight_files(folder)]
    return (digests[0] if len(digests) == 1 else sha256("".join(digests)))[:12]


def weights_version(folder: Path) -> list[tuple[int, int, int]]:
    """Returns what changes if a file of the weights is replaced or rewritten."""
    stats = [path.stat() for path in weight_files(folder)]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]


def companion_warnings(folder: Path, pooling: str) -> list[str]:
    """Warns of settings of a sentence-transformers directory that differ from ours.

    Args:
      folder: the directory that `text.encoder` names.
      pooling: `item_tower.pooling`.

    Raises:
      UserError: a file of it is damaged.
    """
    warnings = []
    for kind, module in _modules(folder):
        if kind == "Pooling" and (module / CONFIG).is_file():
            theirs = _pooling(read_json(module / CONFIG))
            if theirs and pooling not in (*theirs, "attention"):  # attention is learned
                warnings.append(
                    f"{module / CONFIG}: this encoder was trained with "
                    f"{' + '.join(theirs)} pooling; item_tower.pooling is {pooling!r}"
                )
        elif kind not in ("Transformer", "Pooling", "Normalize"):
            warnings.append(
                f"{folder / MODULES}: the module {kind} of this encoder is not applied"
            )
    return warnings


def _modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields the kinds and directories of the modules that `modules.json` lists."""
    path = folder / MODULES
    if not path.is_file():
        return
    for module in read_json(path, shape=list):
        known = module if isinstance(module, dict) else {}
        kind, name = known.get("type"), known.get("path")
        if not isinstance(kind, str) or not isinstance(name, str):
            raise UserError(f"{path}: not a list of modules with a type and a path")
        inside = (folder / name).resolve()
        if not inside.is_relative_to(folder.resolve()):
            raise UserError(f"{path}: {name!r} is outside of {folder}")
        yield kind.rpartition(".")[2], folder / name


def _pooling(config: dict[str, Any]) -> list[str]:
    """Returns our names of the poolings that are turned on; absent ones are off."""
    ours = {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
        "pooling_mode_weightedmean_tokens": "weighted_mean",
        "pooling_mode_lasttoken": "last_token",
    }
    return [name for key, name in ours.items() if config.get(key) is True]


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name == Path(name).name
