"""Loads config files and the files of a run, and reports problems in one line."""

import warnings
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from recjax.common.errors import UserError
from recjax.common.files import read_json
from recjax.config.load import explain, load_module
from recjax.config.variants import Changes, read_variants
from recjax.reporting.results_file import check_results_version

PLAN = "sweep.json"
STUDY = "study.db"  # the trials of a search
RERUN = "delete the run directory, and the next sweep runs it again"
RESULT_KEYS = (  # the keys of results.json that sweeps and tables read
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
    """Loads the variants of a config file.

    Raises:
      UserError: the file cannot be read, or has no usable `sweep`.
    """
    sweep = load_function(path, "sweep")
    try:
        return read_variants(sweep)
    except (Exception, SystemExit) as e:  # a config file may raise anything
        raise UserError(f"--config: {path}: {' '.join(explain(e))}") from None


def load_function(path: str, name: str) -> Any:
    """Imports a function of a config file.

    Raises:
      UserError: the file cannot be read, or has no such function.
    """
    return getattr(load_module(path, "--config", name), name)


def resolve(arguments: list[str]) -> Any:
    """Returns the config that the flags of a run give.

    Raises:
      UserError: the config cannot be built from these flags.
    """
    values, argv = flags.FlagValues(), ["sweep", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        with warnings.catch_warnings():
            # config_flags imports the file through a deprecated function.
            warnings.simplefilter("ignore", DeprecationWarning)
            values(argv)
            config = values.config
            config.keys()  # a file that could not be loaded raises here, not before
            return config
    except (Exception, SystemExit) as e:  # a config file may raise anything
        raise UserError(f"config of {arguments[0]}: {' '.join(explain(e))}") from None


def check_arguments(arguments: list[str]) -> None:
    """Raises UserError at arguments after `--` that do not change the config.

    The seed is refused too, because it would be the same in all runs.
    """
    for argument in arguments:
        if not argument.startswith("--config.") or argument.startswith("--config.seed"):
            raise UserError(
                f"{argument!r} after --: only --config.KEY=... is allowed, and not the "
                "seed"
            )


def is_finished(folder: Path) -> bool:
    """Returns whether a run has written its results."""
    return (folder / "results.json").exists()


def read_results(folder: Path) -> dict[str, Any]:
    """Reads the `results.json` of a finished run.

    Raises:
      UserError: the file cannot be read, or misses one of `RESULT_KEYS`.
    """
    path = folder / "results.json"
    results = read_json(path, RERUN)
    check_results_version(path, results)
    for key in RESULT_KEYS:
        if key not in results:
            raise UserError(f"{path}: damaged or too old, no {key!r}; {RERUN}")
    return results


def read_plan(folder: Path) -> dict[str, Any]:
    """Reads the `sweep.json` of a directory.

    Raises:
      UserError: the file is missing, damaged or of an older version.
    """
    path = folder / PLAN
    if not path.exists():
        raise UserError(
            f"{folder}: no {PLAN}; use a directory that experiments.sweep filled"
        )
    plan = read_json(path)
    if "points" in plan:
        raise UserError(
            f"{path}: written by an older version (it has 'points', not 'variants'); "
            "run the sweep again with another --out"
        )
    for key in ("config", "data", "arguments", "variants", "seeds"):
        if key not in plan:
            raise UserError(f"{path}: damaged, no {key!r}")
    return plan
