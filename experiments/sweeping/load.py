"""Config files and what their flags make, read without a traceback."""

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from configs.ablations.reference import Changes
from configs.ablations.reference import read_variants as read_points
from recjax.common.errors import UserError
from recjax.config.load import explain
from recjax.reporting.results_file import check_results_version

PLAN = "sweep.json"
STUDY = "study.db"  # of a search
AGAIN = "delete the run directory, and the sweep makes it again"
NEEDED = (  # of results, by what reads them here
    "baselines",
    "code",
    "cores",
    "fingerprint",
    "params",
    "peak_memory_mib",
    "phases",
    "pretrained",
    "protocol",
    "seconds",
    "seed",
    "test",
    "valid",
)


def load_sweep(path: str) -> dict[str, Changes]:
    """The points of a config file.

    Raises:
      UserError: it cannot be read, or has no sweep.
    """
    sweep = load_from(path, "sweep")
    try:
        return read_points(sweep)
    except (Exception, SystemExit) as e:  # a config file may raise anything
        raise UserError(f"--config: {path}: {' '.join(explain(e))}") from None


def load_from(path: str, name: str) -> Any:
    """What a config file calls so.

    Raises:
      UserError: it cannot be read, or has no such thing.
    """
    if not Path(path).exists():
        raise UserError(f"--config: {path} is not there")
    spec = importlib.util.spec_from_file_location("sweep_config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:  # a config file may raise anything
        raise UserError(f"--config: {path}: {' '.join(explain(e))}") from None
    if not hasattr(module, name):
        raise UserError(f"--config: {path} has no function {name!r}")
    return getattr(module, name)


def resolve(arguments: list[str]) -> Any:
    """The config that a run's flags make.

    Raises:
      UserError: they make none.
    """
    values, argv = flags.FlagValues(), ["sweep", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        with warnings.catch_warnings():  # of how config_flags imports a file
            warnings.simplefilter("ignore", DeprecationWarning)
            values(argv)
            config = values.config
            config.keys()  # a file that could not be loaded raises here, not before
            return config
    except (Exception, SystemExit) as e:  # a config file may raise anything
        raise UserError(f"config of {arguments[0]}: {' '.join(explain(e))}") from None


def check_arguments(arguments: list[str]) -> None:
    """Raises UserError at what is no change of a config, or would be all runs' seed."""
    for each in arguments:
        if not each.startswith("--config.") or each.startswith("--config.seed"):
            raise UserError(f"{each!r} after --: only --config.KEY=..., without seed")


def read_json(path: Path) -> Any:
    """A file of JSON.

    Raises:
      UserError: it is not there, or none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    except ValueError as e:
        raise UserError(f"{path}: {e}") from None


def is_finished(folder: Path) -> bool:
    """Whether a run has its results."""
    return (folder / "results.json").exists()


def read_results(folder: Path) -> dict[str, Any]:
    """The `results.json` of a finished run.

    Raises:
      UserError: it cannot be read, or is not whole.
    """
    path = folder / "results.json"
    try:
        found = read_json(path)
    except UserError as e:
        raise UserError(f"{e}; {AGAIN}") from None
    check_results_version(path, found)
    for key in NEEDED:
        if not isinstance(found, dict) or key not in found:
            raise UserError(f"{path}: damaged or too old, no {key!r}; {AGAIN}")
    return found


def read_plan(folder: Path) -> dict[str, Any]:
    """The `sweep.json` of a directory.

    Raises:
      UserError: it is not there, or not whole.
    """
    if not (path := folder / PLAN).exists():
        raise UserError(f"{folder}: no {PLAN}; experiments.sweep fills a directory")
    found = read_json(path)
    known = found if isinstance(found, dict) else {}
    for key in ("config", "data", "arguments", "points", "seeds"):
        if key not in known:
            raise UserError(f"{path}: damaged, no {key!r}")
    return known
