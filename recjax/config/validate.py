"""Validates a config before any expensive work starts.

Bounds and choices of single keys come from their declarations in `recjax.config.keys`;
the functions in `RULES` yield messages about combinations of keys, and about conditions
that a declaration cannot express. The first message is raised.
"""

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import jax
from ml_collections import ConfigDict

from recjax.baselines import AUTO, TEXT
from recjax.common.errors import UserError
from recjax.config.choices import allowed_names
from recjax.config.keys import PHASE, declared_keys
from recjax.config.schema import Key
from recjax.data.batching.augmentation import TRANSFORMATIONS
from recjax.data.dataset import NO_SPLIT
from recjax.evaluation.metrics import LIKE_AUC
from recjax.losses import RATING, learns_likes
from recjax.models.heads import BIASED_GROUPS
from recjax.models.items.tower import ZERO_SHOT
from recjax.models.objectives import CATEGORY
from recjax.models.users import (
    BIDIRECTIONAL,
    HAS_HEADS,
    HAS_TIME_BIAS,
    USES_GRAPH,
    inner_width,
)

MAX_NAME = 64  # characters of a phase name, which is a part of file names


def check_config(config: ConfigDict) -> None:
    """Checks names, numbers and combinations of keys.

    Raises:
      UserError: names the key, the value and what is allowed.
    """
    for name, key in declared_keys().items():
        check_value(name, _get_value(config, name), key)
    phases = config.train.phases
    if not phases or not all(is_phase(phase) for phase in phases):
        raise UserError(
            f"train.phases: {phases!r} is not a tuple of phase(...), see "
            "recjax.config.phase"
        )
    for phase in phases:
        for name, key in PHASE.items():
            check_value(f"phase {phase.name}: {name}", phase[name], key)
    for rule in RULES:
        for message in rule(config):
            raise UserError(message)


def is_phase(value: Any) -> bool:
    """Returns whether a value has all keys of a phase."""
    return isinstance(value, ConfigDict) and set(value) >= set(PHASE)


def _get_value(config: ConfigDict, name: str) -> Any:
    """Returns the value of a key; raises UserError if the config does not have it."""
    section, _, last = name.rpartition(".")
    # An absent section is refused below, not replaced.
    part = config.get(section) if section else config
    if not isinstance(part, ConfigDict) or last not in part:
        raise UserError(
            f"{name}: the config has no such key; start from recjax.config.get_config()"
        )
    return part[last]


def check_value(name: str, value: Any, key: Key) -> None:
    """Checks a value against its declaration.

    Raises:
      UserError: the value is missing, of another type, or not allowed.
    """
    if value is None:
        raise UserError(f"{name} is None; set a value")
    many = isinstance(key.default, tuple)
    bounds = key.bounds()
    allowed = allowed_names(key.choices)
    for item in value if many else (value,):
        # ml_collections checks the types of all values except the items of tuples.
        if many and key.default and not _same_type(item, key.default[0]):
            kind = type(key.default[0]).__name__
            raise UserError(f"{name}: {item!r} in {tuple(value)} is not of type {kind}")
        if isinstance(item, float) and not math.isfinite(item) and not key.infinite:
            raise UserError(f"{name}: {item} is not a finite number")
        if bounds and not key.within_bounds(item):
            raise UserError(f"{name}: {item} is not {bounds}")
        if allowed and item not in allowed and not (key.optional and item == ""):
            raise UserError(f"{name}: {item!r} is not one of {', '.join(allowed)}")


def _same_type(item: Any, example: Any) -> bool:
    """Returns whether an item has the type of an example; a float may be an int."""
    wider = {tuple: tuple | list, float: int | float}.get(type(example))
    return isinstance(item, wider) if wider else type(item) is type(example)


def _check_phases(config: ConfigDict) -> Iterator[str]:
    names = [phase.name for phase in config.train.phases]
    for name in names:
        if not re.fullmatch(r"[\w-]+", name):  # it is a part of file names
            yield f"train.phases: name {name!r} must have only letters, digits, _ and -"
        if len(name) > MAX_NAME:
            yield f"train.phases: name {name!r} has more than {MAX_NAME} characters"
    if len(set(names)) < len(names):
        yield f"train.phases: two of {', '.join(names)} have the same name"
    if not any(phase.epochs for phase in config.train.phases):
        yield "train.phases: no phase has any epochs; set one to at least 1"


def _check_data(config: ConfigDict) -> Iterator[str]:
    data = config.data
    # The prefix must not lead out of the directory of the data.
    if not re.fullmatch(r"[\w.-]*", data.file_prefix) or ".." in data.file_prefix:
        yield f"data.file_prefix: {data.file_prefix!r} is not a part of a file name"
    for key in ("user", "item"):
        if not data[key]:
            yield f"data.{key}: '' is not the name of a column"
    limits = tuple(data.rating_range)
    numbers = all(isinstance(limit, int | float) for limit in limits)
    if limits and (len(limits) != 2 or not numbers or limits[0] >= limits[1]):
        yield f"data.rating_range: {limits} is not (lowest, highest)"
    fractions = tuple(data.split_fractions)
    if len(fractions) != 2 or min(fractions) <= 0 or sum(fractions) >= 1:
        yield (
            f"data.split_fractions: {fractions} is not (validation, test), both above "
            "0 and their sum below 1"
        )
    # A misspelt column that exists would otherwise be noticed only in the results.
    key_of_column: dict[str, str] = {}
    keys = ("user", "item", "time", "rating", "history")
    for key in keys if data.split == "fixed" else keys[:-1]:
        column = data[key]
        if column and column in key_of_column:
            yield f"data.{key}: {column!r} is already data.{key_of_column[column]}"
        key_of_column[column] = key


def _check_no_split(config: ConfigDict) -> Iterator[str]:
    """Without a validation split, nothing can be chosen by validation."""
    if config.data.split != NO_SPLIT:
        return
    where = f"data.split={NO_SPLIT!r} holds nothing out"
    for phase in config.train.phases:
        if phase.epochs and (phase.keep != "last" or phase.patience):
            yield (
                f"phase {phase.name}: {where}, so no epoch can be chosen; set "
                "keep='last' and patience=0, or use --config=refit:RUN"
            )
    fused, weights = tuple(config.head.fusion), tuple(config.head.fusion_weights)
    if AUTO in fused or (fused and len(fused) != len(weights)):
        yield (
            f"head.fusion_weights: {where}; name the baselines in head.fusion and set "
            "one weight for each, or use --config=refit:RUN"
        )
    if config.data.cold_items:
        yield f"data.cold_items: {where}; set 0"


def _check_ratings(config: ConfigDict) -> Iterator[str]:
    data = config.data
    for key, value in (
        ("eval.like_threshold", config.eval.like_threshold),
        ("data.min_rating", data.min_rating),
    ):
        if value and not data.rating:
            yield f"{key}: needs a column of ratings; set data.rating"
    needs_likes = "set eval.like_threshold and data.rating"
    if config.loss.name == RATING and not config.eval.like_threshold:
        yield f"loss.name: 'rating' needs likes; {needs_likes}"
    if config.user_tower.ratings and not config.eval.like_threshold:
        yield f"user_tower.ratings: True needs likes; {needs_likes}"
    if data.split == "fixed" and (data.min_rating or data.k_core):
        yield (
            "data.split: 'fixed' files are not filtered; set data.min_rating and "
            "data.k_core to 0"
        )


def _check_auxiliary(config: ConfigDict) -> Iterator[str]:
    loss = config.loss
    names, weights = tuple(loss.auxiliary), tuple(loss.auxiliary_weights)
    if len(set((loss.name, *names))) < 1 + len(names):
        yield f"loss.auxiliary: {names} has a loss twice, or that of loss.name"
    if weights and len(weights) != len(names):
        yield (
            f"loss.auxiliary_weights: {weights} must have one weight for each of "
            f"{names}; () learns them"
        )
    if not all(isinstance(x, int | float) and x >= 0 for x in weights):
        yield f"loss.auxiliary_weights: {weights} must be numbers of at least 0"
    if RATING in names and not config.eval.like_threshold:
        yield (
            "loss.auxiliary: 'rating' needs likes; set eval.like_threshold and "
            "data.rating"
        )
    if CATEGORY not in names:
        return
    if loss.category and not config.data.item_table:
        yield "loss.category: needs an item file; set data.item_table to True"
    if not loss.category and "text" not in config.item_tower.sources:
        yield (
            "loss.category: '' clusters texts, which needs 'text' in "
            "item_tower.sources; name a column"
        )


def _check_metrics(config: ConfigDict) -> Iterator[str]:
    if not config.eval.ks:
        yield "eval.ks: () has no cut-off; set at least one"
    # Other cut-offs are not computed; the run would fail only after the first epoch.
    known = [f"{m}@{k}" for m in ("hr", "ndcg", "mrr") for k in config.eval.ks]
    known.append("auc")
    if learns_likes(config.loss):
        known.append(LIKE_AUC)
    named = [("train.metric", config.train.metric)]
    named += [("report.metrics", name) for name in config.report.metrics]
    for key, name in named:
        if name not in known:
            yield f"{key}: {name!r} is not one of {', '.join(known)}"
    # These are chosen by the ranks alone.
    tuned = [key for key in ("fusion", *BIASED_GROUPS) if config.head[key]]
    if tuned and config.train.metric == LIKE_AUC:
        yield f"train.metric: {LIKE_AUC!r} cannot choose head.{tuned[0]}; set it to ()"


def _check_group_weights(config: ConfigDict) -> Iterator[str]:
    weights = tuple(config.train.group_weights)
    numbers = all(isinstance(x, int | float) and x >= 0 for x in weights)
    if len(weights) not in (0, 3) or not numbers or (weights and not sum(weights)):
        yield (
            f"train.group_weights: {weights} must be three numbers of at least 0, of "
            "new, cold and warm targets, not all 0; or ()"
        )


def _check_towers(config: ConfigDict) -> Iterator[str]:
    tower = config.user_tower
    sources = tuple(config.item_tower.sources)
    if not sources or len(set(sources)) < len(sources):
        yield (
            f"item_tower.sources: {sources} must contain at least one source, and each "
            "only once"
        )
    if "text" in sources and not config.text.template.strip():
        yield "text.template: empty, but item_tower.sources contains 'text'"
    name = tower.name
    width = inner_width(tower, config.item_tower.width)
    key = "item_tower" if width == config.item_tower.width else "user_tower"
    if name in HAS_HEADS and width % tower.num_heads:
        yield (
            f"{key}.width: {width} is not divisible by user_tower.num_heads, "
            f"{tower.num_heads}"
        )
    if tower.filter_share and name != "transformer":
        yield f"user_tower.filter_share: {name!r} has no filter; set 0"
    if tower.time and name not in HAS_TIME_BIAS:
        yield f"user_tower.time: {name!r} has no biases of times; set False"
    if tower.time and (not config.data.time or config.data.split == "fixed"):
        yield "user_tower.time: the data have no times (see data.time); set False"
    if tower.width and not tower.recency:
        yield (
            f"user_tower.width: {tower.width} needs user_tower.recency; set 0, and the "
            "width in item_tower.width"
        )
    if tower.recency and (name in BIDIRECTIONAL or name in USES_GRAPH):
        yield f"user_tower.recency: cannot be combined with {name!r}; set False"
    for key in ("repeats", "ratings"):
        if name in BIDIRECTIONAL and tower[key]:
            yield f"user_tower.{key}: {name!r} would leak the masked items; set False"
    if name in BIDIRECTIONAL and config.data.history_length < 2:
        yield (
            f"data.history_length: {name!r} needs at least 2, one of them for the mask"
        )
    for phase in config.train.phases if name in USES_GRAPH else ():
        negatives = phase.negatives or config.loss.negatives
        key = f"phase {phase.name}: negatives" if phase.negatives else "loss.negatives"
        if negatives != "all":
            yield (
                f"{key}: {negatives!r}; a graph tower reads all items in every step "
                "and needs 'all'"
            )


def _check_zero_shot(config: ConfigDict) -> Iterator[str]:
    tower = config.item_tower
    if tower.init != ZERO_SHOT:
        return
    if "text" not in tower.sources:
        yield "item_tower.init: 'zero_shot' needs 'text' in item_tower.sources"
    elif config.text.whiten:
        yield "text.whiten: the projection of zero_shot whitens already; set False"
    elif tower.mlp_layers:
        yield (
            f"item_tower.mlp_layers: {tower.mlp_layers} random layers come before the "
            "projection of zero_shot; set 0"
        )
    elif len(tower.sources) > 1 and tower.combine != "sum":
        yield f"item_tower.combine: {tower.combine!r} with zero_shot; set 'sum'"


def _check_augmentation(config: ConfigDict) -> Iterator[str]:
    augment, tower = config.augment, config.user_tower.name
    if augment.substitute and "text" not in config.item_tower.sources:
        yield "augment.substitute: needs 'text' in item_tower.sources"
    for name in TRANSFORMATIONS if tower in BIDIRECTIONAL else ():
        if augment[name]:
            yield (
                f"augment.{name}: {tower!r} hides items of its windows already; set 0"
            )


def _check_baselines(config: ConfigDict) -> Iterator[str]:
    fused = tuple(config.head.fusion)
    weights = tuple(config.head.fusion_weights)
    if not weights:
        yield "head.fusion_weights: () has no weight; set at least one"
    if len(set(fused)) < len(fused):
        yield f"head.fusion: {fused} contains a baseline twice"
    if AUTO in fused and len(fused) > 1:
        yield f"head.fusion: {AUTO!r} chooses the baselines; leave out the others"
    for key, names in baseline_keys(config):
        if TEXT in names and "text" not in config.item_tower.sources:
            yield f"{key}: 'text' needs 'text' in item_tower.sources"
        if "bpr_mf" in names and find_spec("implicit") is None:
            yield (
                f"{key}: 'bpr_mf' needs the library implicit: "
                "pip install 'implicit>=0.7.3'"
            )


def _check_biases(config: ConfigDict) -> Iterator[str]:
    head = config.head
    for key, groups in BIASED_GROUPS.items():
        biases = head[key]
        for bias in biases:
            if isinstance(bias, bool) or not isinstance(bias, int | float):
                yield f"head.{key}: {bias!r} is not a number"
        searched = config.data.split != NO_SPLIT
        if not searched and len(biases) not in (0, len(groups)):
            yield (
                f"head.{key}: {tuple(biases)}; without a split it has the bias of "
                f"{' and of '.join(groups)} items"
            )
    if head.event_bias and head.name == "two_tower" and not head.bias:
        yield "head.event_bias: needs a bias for each item; set head.bias to True"
    if head.seen_bias and config.eval.mask_seen:
        yield "head.seen_bias: seen items are masked; set () or eval.mask_seen=False"


def baseline_keys(config: ConfigDict) -> Iterator[tuple[str, Sequence[str]]]:
    """Yields each key that names baselines, with its value."""
    yield "eval.baselines", config.eval.baselines
    yield "head.fusion", config.head.fusion


def _check_optimizer(config: ConfigDict) -> Iterator[str]:
    shared = config.optim.shared_moment
    if shared and config.optim.name != "adamw":
        yield f"optim.shared_moment: {config.optim.name!r} has no second moment; set ()"
    for regex in shared:
        try:
            re.compile(regex)
        except (re.error, TypeError) as e:
            yield f"optim.shared_moment: {regex!r} is not a regex ({e})"


def _check_mesh(config: ConfigDict) -> Iterator[str]:
    if jax.process_count() > 1 and config.mesh.model != 1:
        yield (
            f"mesh.model: {config.mesh.model} with several processes; they share the "
            "batch, so set 1"
        )


def _check_wandb(config: ConfigDict) -> Iterator[str]:
    missing = "wandb" not in sys.modules and find_spec("wandb") is None
    if config.report.wandb and missing:
        yield "report.wandb: needs the library wandb: pip install 'wandb>=0.20'"


RULES: tuple[Callable[[ConfigDict], Iterator[str]], ...] = (
    _check_phases,
    _check_data,
    _check_no_split,
    _check_ratings,
    _check_auxiliary,
    _check_metrics,
    _check_group_weights,
    _check_towers,
    _check_zero_shot,
    _check_augmentation,
    _check_baselines,
    _check_biases,
    _check_optimizer,
    _check_mesh,
    _check_wandb,
)
