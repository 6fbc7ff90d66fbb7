"""The optimizer of a phase: schedule, learning-rate and decay multipliers by regex."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optax

from recjax.common.errors import UserError
from recjax.common.param_paths import TEXT_PARAMS, FlatParams, match_rules, unused_rules

Schedule = Callable[[Any], Any]
KERNEL_RULE = r".*/kernel"  # what decays by default


@dataclass(frozen=True)
class Optimizer:
    """A phase's optimizer.

    Attributes:
      tx: transformation of the trainable parameters only, as a flat dict.
      schedule: step -> learning rate before multipliers.
      lr_mults: path -> multiplier; None means frozen.
      wd_mults: path -> multiplier of the weight decay.
    """

    tx: optax.GradientTransformation
    schedule: Schedule
    lr_mults: FlatParams
    wd_mults: FlatParams


def _adamw(c: Any) -> optax.GradientTransformation:
    return optax.scale_by_adam(c.b1, c.b2, c.eps)


def _sgd(c: Any) -> optax.GradientTransformation:
    return optax.trace(c.momentum) if c.momentum else optax.identity()


def _adafactor(c: Any) -> optax.GradientTransformation:
    """Shazeer and Stern (2018), with external learning rate and no momentum."""
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))


OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "adafactor": _adafactor,
}


def _constant(lr: float, steps: int) -> Schedule:
    del steps
    return optax.constant_schedule(lr)


def _linear(lr: float, steps: int) -> Schedule:
    return optax.linear_schedule(lr, 0.0, max(steps, 1))


def _cosine(lr: float, steps: int) -> Schedule:
    return optax.cosine_decay_schedule(lr, max(steps, 1))


SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
}


def make_schedule(phase: Any, steps: int) -> Schedule:
    """Linear warm-up over `phase.warmup` of the steps, then the decay by name."""
    warmup = int(phase.warmup * steps)
    decay = SCHEDULES[phase.schedule](phase.lr, steps - warmup)
    if not warmup:
        return decay
    rise = optax.linear_schedule(phase.lr / warmup, phase.lr, max(warmup - 1, 1))
    return optax.join_schedules([rise, decay], [warmup])


def make_optimizer(config: Any, phase: Any, paths: list[str], steps: int) -> Optimizer:
    """Builds the optimizer of one phase.

    Args:
      config: `config.optim`.
      phase: one of `config.train.phases`.
      paths: of all parameters.
      steps: of the phase.

    Raises:
      UserError: a parameter that no rule matches, a rule that decides about none, a
        multiplier that is no number, or nothing to train.
    """
    lr_mults = match_rules(phase.lr_mults, paths, f"phase {phase.name}: lr_mults")
    wd_mults = match_rules(config.wd_mults, paths, "optim.wd_mults")
    for mult in lr_mults.values():
        if not isinstance(mult, int | float | None):
            raise UserError(f"phase {phase.name}: multiplier {mult!r} is no number")
    for mult in wd_mults.values():
        if not isinstance(mult, int | float):
            raise UserError(f"optim.wd_mults: multiplier {mult!r} is no number")
    if all(mult is None for mult in lr_mults.values()):
        raise UserError(f"phase {phase.name}: lr_mults freeze every parameter")
    textless = not any(path.startswith(TEXT_PARAMS) for path in paths)
    for name, rules in (
        (f"phase {phase.name}: lr_mults", phase.lr_mults),
        ("optim.wd_mults", config.wd_mults),
    ):
        for pattern, mult in unused_rules(rules, paths):
            of_text = textless and pattern.startswith(TEXT_PARAMS)
            if (of_text and mult is None) or pattern == KERNEL_RULE:
                continue  # nothing there to freeze; a model without dense layers
            why = ": the items have no text" if of_text else ""
            raise UserError(f"{name}: {pattern!r} decides about no parameter{why}")
    schedule = make_schedule(phase, steps)

    def decay(updates: Any, params: Any) -> Any:
        return {
            path: u + config.weight_decay * wd_mults[path] * params[path]
            for path, u in updates.items()
        }

    def multiply(updates: Any, params: Any) -> Any:
        del params
        return {path: u * lr_mults[path] for path, u in updates.items()}

    chain = [OPTIMIZERS[config.name](config)]
    if config.clip_norm:
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay:
        chain.append(optax.stateless(decay))
    chain += [optax.stateless(multiply), optax.scale_by_learning_rate(schedule)]
    return Optimizer(optax.chain(*chain), schedule, lr_mults, wd_mults)


def split_params(params: FlatParams, optim: Optimizer) -> tuple[FlatParams, FlatParams]:
    """Trainable and frozen parameters, as flat dicts."""
    trainable = {p: x for p, x in params.items() if optim.lr_mults[p] is not None}
    return trainable, {p: x for p, x in params.items() if p not in trainable}


def group_multipliers(optim: Optimizer) -> dict[str, float]:
    """Largest multiplier by the tower or encoder it belongs to, for the logs."""
    found: dict[str, float] = {}
    for path, mult in optim.lr_mults.items():
        if mult is not None:
            name = "encoder" if "/encoder/" in path else path.split("/")[0]
            found[name] = max(float(mult), found.get(name, 0.0))
    return found
