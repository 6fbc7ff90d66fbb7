"""Finds and reads configs: Python files, saved JSON files, packaged examples."""

import difflib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from ml_collections import ConfigDict

from recjax.common import errors
from recjax.common.errors import UserError
from recjax.common.files import read_json, user_path
from recjax.config import base
from recjax.config.keys import PHASE, SECTIONS, declared_keys
from recjax.config.renamed import describe_rename, find_rename
from recjax.config.schema import Key

EXAMPLES = Path(__file__).parent / "examples"
SAVED_CONFIG = Path(__file__).parent / "saved_config.py"
REFIT = "refit"  # refit:RUN, see recjax/config/refit.py
# Patterns in the messages of ml_collections, absl and Python, and what replaces them.
MESSAGE_REWRITES = (
    # ml_collections lists the values of the section if no key is close.
    (r"""Key "(\w+)" does not exist.*""", r"no key '\1'"),
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not an integer"),
    (r"could not convert string to float: (.*)", r"\1 is not a number"),
    (r"\('Non-boolean argument to boolean flag', (.*)\)", r"\1 is not true or false"),
    (
        r"Error while parsing string: (.*) as tuple\..*",
        r"'\1' is not a tuple like (1, 5)",
    ),
    (r"Failed to parse (.*) as a ConfigDict: .*", r"\1 is not a section; set its keys"),
    (r"Unknown command line flag '([^']*)'\.?", r"there is no flag --\1;"),
    (r"ERROR:: Unable to open flagfile: \[Errno \d+\] (.*): (.*)", r"\2: \1"),
    (r"^flag (?=--)|;$", ""),
)


def example_names() -> list[str]:
    """Lists the configs that the package contains."""
    return sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem != "__init__")


def config_path(value: str) -> str:
    """Translates a value of --config into FILE.py or FILE.py:ARG.

    The value is FILE.py[:ARG], FILE.json, refit:RUN, or the name of a packaged example;
    anything else is a `UserError`.
    """
    # `config_flags` reads Python files only; one of this package reads the JSON file.
    if value.endswith(".json"):
        return f"{SAVED_CONFIG}:{value}"
    path, colon, argument = value.partition(":")
    if path.endswith(".py"):
        return value
    if path == REFIT:
        return f"{Path(__file__).parent / REFIT}.py:{argument}"
    if path in example_names():
        return f"{EXAMPLES / path}.py{colon}{argument}"
    if (Path(value) / "config.json").is_file():
        raise UserError(
            f"--config: {value!r} is a directory; write {value}/config.json"
        )
    if colon and Path(value).is_file():
        raise UserError(f"--config: {value!r}: a path cannot have a colon; rename it")
    raise UserError(
        f"--config: {value!r} is neither FILE.py, nor FILE.json, nor refit:RUN, nor "
        f"one of the examples in the package: {', '.join(example_names())}"
    )


def load_json(path: str | Path) -> ConfigDict:
    """Reads a resolved config, as a run saves it, into a locked config.

    Raises:
      UserError: the file cannot be read, or has an unknown or renamed key or a value
        of another type.
    """
    file = user_path(str(path), "--config")
    saved = read_json(file)
    try:
        return from_dict(saved)
    except UserError as e:
        raise UserError(f"--config: {file}: {e}") from None


def load_module(path: str, where: str, function: str) -> ModuleType:
    """Imports a Python file that has to define a function.

    Args:
      path: the file.
      where: begins the messages of errors.
      function: name of the function.

    Raises:
      UserError: the file cannot be read, or has no such function.
    """
    if not Path(path).exists():
        raise UserError(f"{where}: {path} does not exist")
    spec = importlib.util.spec_from_file_location("user_file", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{where}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:  # a file of the user may raise anything
        raise UserError(f"{where}: {path}: {' '.join(explain(e))}") from None
    if not callable(getattr(module, function, None)):
        raise UserError(f"{where}: {path} has no function {function!r}")
    return module


def from_dict(saved: Any) -> ConfigDict:
    """Builds a locked config from nested dictionaries; absent keys keep the default.

    Raises UserError as `load_json` does.
    """
    config = base.get_config()
    for name, value in _items(saved, "the config"):
        # The top level has keys without a section besides the sections.
        if name not in SECTIONS:
            _set(config, "", name, value, [*SECTIONS[""], *SECTIONS])
            continue
        for key, setting in _items(value, name):
            if (name, key) == ("train", "phases"):
                setting = _phases(setting)
            _set(config[name], f"{name}.", key, setting, SECTIONS[name])
    return config


def find_key(name: str) -> Key | None:
    """Finds the declaration of a flat key, as in `train.phases[0].lr`."""
    name = re.sub(r"(\[\w+\])+$", "", name)  # as in eval.ks[0]
    if found := re.fullmatch(r"train\.phases\[\w+\]\.(\w+)", name):
        return PHASE.get(found[1])
    return declared_keys().get(name)


def check_key(name: str) -> None:
    """Checks that a flat key, or a section, exists.

    Raises:
      UserError: no such key; gives its new name if it was renamed, else the closest.
    """
    if found := re.match(r"train\.phases\.?(\d+)\.", name):
        right = name.replace(found[0], f"train.phases[{found[1]}].", 1)
        raise UserError(f"{name}: no such key; write {right}")
    if find_key(name) or name in SECTIONS:
        return
    section, _, last = name.rpartition(".")
    if section == "train" and last in PHASE:
        raise UserError(
            f"{name}: no such key; it is a key of a phase: train.phases[0].{last}"
        )
    phase = re.match(r"train\.phases\[\w+\]\.", name)
    known = [f"{phase[0]}{key}" for key in PHASE] if phase else [*declared_keys()]
    _unknown("", name, [*known, *SECTIONS])


def explain(e: BaseException) -> list[str]:
    """Describes an error of a config file or of its flags; names renamed keys."""
    lines = errors.explain(e)
    for pattern, replacement in MESSAGE_REWRITES:
        lines[-1] = re.sub(pattern, replacement, lines[-1], flags=re.DOTALL)
    rename = find_rename(lines[-1])
    return [*lines[:-1], f"{lines[-1]} ({rename})"] if rename else lines


def _items(value: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise UserError(f"{name}: {value!r} is not a section with keys")
    return list(value.items())


def _phases(value: Any) -> tuple[ConfigDict, ...]:
    if not isinstance(value, list):
        raise UserError(f"train.phases: {value!r} is not a list of phases")
    phases = tuple(base.phase("") for _ in value)
    for i, (phase, saved) in enumerate(zip(phases, value, strict=True)):
        for key, setting in _items(saved, f"train.phases[{i}]"):
            _set(phase, f"train.phases[{i}].", key, setting, PHASE)
    return phases


def _set(config: ConfigDict, section: str, name: str, value: Any, known: Any) -> None:
    """Sets a declared key."""
    if name not in known:
        _unknown(section, name, known)
    try:
        # JSON has lists where configs have tuples.
        config[name] = _tuples(value)
    except (TypeError, ValueError):
        kind = type(config[name]).__name__
        raise UserError(f"{section}{name}: {value!r} is not of type {kind}") from None


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _unknown(section: str, name: str, known: Iterable[str]) -> NoReturn:
    key = f"{section}{name}"
    if rename := describe_rename(key):
        raise UserError(f"{key}: no such key; {rename}")
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    hint = f'; did you mean "{section}{close[0]}"?' if close else ""
    raise UserError(f"{key}: no such key{hint}")
