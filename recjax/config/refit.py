"""A config file whose argument is a finished run: `refit.py:RUN`.

It trains the model of that run again, on all events: nothing is held out, so the number
of epochs of each phase and the weights of the score fusion are those that validation
chose in the run.
"""

from typing import Any

from ml_collections import ConfigDict

from recjax.baselines import AUTO
from recjax.common.errors import UserError
from recjax.common.files import read_json, user_path
from recjax.config.load import load_json
from recjax.models.heads import BIASED_GROUPS


def get_config(run: str = "") -> ConfigDict:
    """Returns the config of a run, changed to train on all events.

    Args:
      run: directory of the finished run.

    Raises:
      UserError: there is no finished run, its data are split files, or its last phase
        is no better than the parameters before it.
    """
    if not run:
        raise UserError("--config: name a finished run: --config=refit:RUN")
    folder = user_path(run, "--config")
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(
            f"--config: {folder}: no finished run (there is no results.json)"
        )
    config = load_json(folder / "config.json").unlock()
    if config.data.split == "fixed":
        raise UserError(
            f"--config: {folder}: was trained on split files; data.split='none' needs "
            "one file with all events"
        )
    phases = _read_phases(path)
    config.data.split, config.data.cold_items = "none", 0.0
    for phase in config.train.phases:
        if phase.epochs:
            phase.epochs = _kept_epoch(phases, phase.name, path)
            phase.keep, phase.patience = "last", 0
    if not any(phase.epochs for phase in config.train.phases):
        raise UserError(
            f"--config: {folder}: no epoch of this run was kept; train it "
            "with more epochs or another learning rate"
        )
    if config.head.fusion:
        weights = _fusion_weights(phases, config, path)
        config.head.fusion = tuple(weights)
        config.head.fusion_weights = tuple(weights.values()) or (0.0,)
    for key, groups in BIASED_GROUPS.items():
        if config.head[key]:
            config.head[key] = _biases(phases, key, groups, path)
    # In-sample, baselines that count events would only repeat what they counted.
    config.eval.baselines, config.eval.zero_shot = (), False
    return config.lock()


def _read_phases(path: Any) -> dict[str, Any]:
    phases = read_json(path).get("phases")
    if not isinstance(phases, dict) or not phases:
        raise UserError(f"--config: {path}: has no phases")
    return phases


def _kept_epoch(phases: dict[str, Any], name: str, path: Any) -> int:
    entry = phases.get(name)
    epoch = entry.get("kept_epoch") if isinstance(entry, dict) else None
    if type(epoch) is not int or epoch < 0:
        raise UserError(f"--config: {path}: has no kept_epoch of phase {name}")
    return epoch


def _fusion_weights(
    phases: dict[str, Any], config: ConfigDict, path: Any
) -> dict[str, float]:
    """Returns the weights of the fused baselines, as the last phase has chosen them.

    Of those that "auto" chose from, only the ones with a weight.
    """
    found = list(phases.values())[-1].get("fusion")
    try:
        if AUTO in config.head.fusion:
            return {name: float(x) for name, x in found.items() if x}
        return {name: float(found[name]) for name in config.head.fusion}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"--config: {path}: has no weights of head.fusion") from None


def _biases(
    phases: dict[str, Any], key: str, groups: tuple[str, ...], path: Any
) -> tuple[float, ...]:
    """Returns the biases of groups of items that the last phase has chosen."""
    found = list(phases.values())[-1].get(key)
    try:
        return tuple(float(found[name]) for name in groups)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"--config: {path}: has no head.{key}") from None
