"""The optimizer of a phase: schedule, learning-rate and decay multipliers by regex."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import optax

from recjax.common.errors import UserError
from recjax.common.param_paths import (
    TEXT_PARAMS,
    FlatParams,
    Rules,
    match_rules,
    unused_rules,
)
from recjax.training.gradient_transforms import decay_to_start, scale_by_shared_adam

Schedule = Callable[[Any], Any]
KERNEL_RULE = r".*/kernel"  # the default rule for weight decay


class PhaseRules(NamedTuple):
    """The rules of a phase, resolved for every parameter.

    Attributes:
      lr_mults: path -> learning-rate multiplier; None means frozen.
      wd_mults: path -> multiplier of the weight decay.
    """

    lr_mults: FlatParams
    wd_mults: FlatParams

    def is_frozen(self, path: str) -> bool:
        """Returns whether the phase leaves a parameter as it is."""
        return self.lr_mults[path] is None

    def trained_paths(self) -> list[str]:
        """Paths of the parameters that the phase trains."""
        return [path for path, mult in self.lr_mults.items() if mult is not None]

    def split(self, params: FlatParams) -> tuple[FlatParams, FlatParams]:
        """Splits parameters into trainable and frozen ones."""
        frozen = {path: x for path, x in params.items() if self.is_frozen(path)}
        return {p: x for p, x in params.items() if p not in frozen}, frozen

    def group_multipliers(self) -> dict[str, float]:
        """Largest multiplier of each tower, and of the encoder, for the logs."""
        largest: dict[str, float] = {}
        for path, mult in self.lr_mults.items():
            if mult is not None:
                group = "encoder" if "/encoder/" in path else path.split("/")[0]
                largest[group] = max(float(mult), largest.get(group, 0.0))
        return largest


@dataclass(frozen=True)
class Optimizer:
    """A phase's optimizer.

    Attributes:
      tx: optax transformation of the trainable parameters, a flat dict.
      schedule: step -> learning rate before multipliers.
    """

    tx: optax.GradientTransformation
    schedule: Schedule


def resolve_rules(config: Any, phase: Any, paths: Sequence[str]) -> PhaseRules:
    """Matches the rules of a phase against all parameters.

    Args:
      config: `config.optim`.
      phase: one of `config.train.phases`.
      paths: the paths of all parameters.

    Raises:
      UserError: a parameter that no rule matches, a rule without effect, a
        multiplier that is not a number of at least 0, or nothing to train.
    """
    lr_name, wd_name = f"phase {phase.name}: lr_mults", "optim.wd_mults"
    rules = PhaseRules(
        match_rules(phase.lr_mults, paths, lr_name),
        match_rules(config.wd_mults, paths, wd_name),
    )
    for _, mult in phase.lr_mults:
        if mult is not None:
            _check_multiplier(lr_name, mult)
    for _, mult in config.wd_mults:
        _check_multiplier(wd_name, mult)
    if all(mult is None for mult in rules.lr_mults.values()):
        raise UserError(f"phase {phase.name}: lr_mults freeze every parameter")
    # A rule without effect is most likely a typo: a freeze that freezes nothing.
    _check_every_rule_matches(lr_name, phase.lr_mults, paths)
    _check_every_rule_matches(wd_name, config.wd_mults, paths)
    for regex in config.shared_moment:
        if not any(re.fullmatch(regex, path) for path in paths):
            raise UserError(f"optim.shared_moment: {regex!r} matches no parameter")
    return rules


def _check_multiplier(name: str, mult: Any) -> None:
    """Raises UserError if a multiplier is not a finite number from 0."""
    number = isinstance(mult, int | float) and not isinstance(mult, bool)
    if not number or not 0 <= mult < math.inf:
        raise UserError(f"{name}: multiplier {mult!r} is not a number of at least 0")


def _check_every_rule_matches(name: str, rules: Rules, paths: Sequence[str]) -> None:
    """Raises UserError at a rule that decides about no parameter."""
    has_text = any(path.startswith(TEXT_PARAMS) for path in paths)
    for pattern, mult in unused_rules(rules, paths):
        is_text = not has_text and pattern.startswith(TEXT_PARAMS)
        # The usual rules stay valid for models without an encoder or dense layers.
        if (is_text and mult is None) or pattern == KERNEL_RULE:
            continue
        why = ": the items have no text" if is_text else ", or only after earlier rules"
        raise UserError(f"{name}: {pattern!r} matches no parameter{why}")


def _adamw(config: Any) -> optax.GradientTransformation:
    moments = config.b1, config.b2, config.eps
    own = optax.scale_by_adam(*moments)
    if not config.shared_moment:
        return own

    def label(params: FlatParams) -> dict[str, str]:
        return {path: "shared" if is_shared(path) else "own" for path in params}

    def is_shared(path: str) -> bool:
        return any(re.fullmatch(regex, path) for regex in config.shared_moment)

    parts = {"own": own, "shared": scale_by_shared_adam(*moments)}
    return optax.partition(parts, label)


def _sgd(config: Any) -> optax.GradientTransformation:
    return optax.trace(config.momentum) if config.momentum else optax.identity()


def _adafactor(config: Any) -> optax.GradientTransformation:
    """Adafactor (Shazeer and Stern, 2018) without its learning rate and momentum."""
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))


OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "adafactor": _adafactor,
}

# Name -> function of the peak learning rate and the number of steps.
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda lr, steps: optax.constant_schedule(lr),
    "linear": lambda lr, steps: optax.linear_schedule(lr, 0.0, max(steps, 1)),
    "cosine": lambda lr, steps: optax.cosine_decay_schedule(lr, max(steps, 1)),
}


def make_schedule(phase: Any, steps: int) -> Schedule:
    """Linear warm-up over a fraction of the steps, then `phase.schedule`."""
    warmup = int(phase.warmup * steps)
    decay = SCHEDULES[phase.schedule](phase.lr, steps - warmup)
    if not warmup:
        return decay
    # The first step already moves: the rate starts at lr / warmup, not at 0.
    rise = optax.linear_schedule(phase.lr / warmup, phase.lr, max(warmup - 1, 1))
    return optax.join_schedules([rise, decay], [warmup])


def make_optimizer(config: Any, phase: Any, rules: PhaseRules, steps: int) -> Optimizer:
    """Builds the optimizer of one phase.

    Args:
      config: `config.optim`.
      phase: one of `config.train.phases`.
      rules: the resolved rules of the phase.
      steps: number of steps of the phase, for the schedule.
    """
    schedule = make_schedule(phase, steps)

    def decay(updates: Any, params: Any) -> Any:
        # Decoupled weight decay (Loshchilov and Hutter, AdamW, 2019, algorithm 2).
        return {
            path: u + config.weight_decay * rules.wd_mults[path] * params[path]
            for path, u in updates.items()
        }

    def multiply(updates: Any, params: Any) -> Any:
        del params
        return {path: u * rules.lr_mults[path] for path, u in updates.items()}

    chain = [OPTIMIZERS[config.name](config)]
    if config.clip_norm:
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay:
        chain.append(optax.stateless(decay))
    if phase.anchor:
        chain.append(decay_to_start(phase.anchor))
    # After the decay, so that a multiplier scales the decay too.
    chain += [optax.stateless(multiply), optax.scale_by_learning_rate(schedule)]
    return Optimizer(optax.chain(*chain), schedule)
