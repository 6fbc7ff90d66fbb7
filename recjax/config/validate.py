"""Validates a config before any expensive work starts.

Bounds and choices of single keys come from their declarations in `recjax.config.keys`;
the functions in `RULES` check what several keys must satisfy together, or what a
declaration cannot express.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import jax
from ml_collections import ConfigDict

from recjax.baselines import TEXT
from recjax.common.errors import UserError
from recjax.config.keys import PHASE, declared_keys
from recjax.config.schema import Key
from recjax.models.users import BIDIRECTIONAL, HAS_HEADS, USES_GRAPH

# Validation tries every combination of fusion weights after each epoch.
MAX_FUSION_COMBINATIONS = 256


def check_config(config: ConfigDict) -> None:
    """Checks names, numbers and combinations of keys.

    Raises:
      UserError: names the key, the value and what is allowed.
    """
    _check_types_of_phases(config)
    for name, key in declared_keys().items():
        section, _, last = name.rpartition(".")
        check_value(name, (config[section] if section else config)[last], key)
    for phase in config.train.phases:
        for name, key in PHASE.items():
            check_value(f"phase {phase.name}: {name}", phase[name], key)
    for rule in RULES:
        rule(config)


def check_value(name: str, value: Any, key: Key) -> None:
    """Checks one value against its declaration.

    Args:
      name: of the key, for the message.
      value: its value; of a tuple, bounds and choices hold for each item.
      key: its declaration.

    Raises:
      UserError: the value is missing, of another type, or not allowed.
    """
    if value is None:
        raise UserError(f"{name} is None; set a value")
    many = isinstance(key.default, tuple)
    bounds = key.bounds()
    allowed = key.allowed()
    for item in value if many else (value,):
        if many and key.default and not _same_type(item, key.default[0]):
            kind = type(key.default[0]).__name__
            raise UserError(f"{name}: {item!r} in {tuple(value)} is not of type {kind}")
        if bounds and not key.within_bounds(item):
            raise UserError(f"{name}: {item} is not {bounds}")
        if allowed and item not in allowed and not (key.optional and item == ""):
            raise UserError(f"{name}: {item!r} is not one of {', '.join(allowed)}")


def _same_type(item: Any, example: Any) -> bool:
    """Whether an item of a tuple has the type of an example; a float may be an int."""
    if isinstance(example, tuple):
        return isinstance(item, tuple | list)
    if isinstance(example, float):
        return isinstance(item, int | float)
    return type(item) is type(example)


def _check_types_of_phases(config: ConfigDict) -> None:
    phases = config.train.phases
    if not phases or not all(hasattr(phase, "lr_mults") for phase in phases):
        raise UserError(
            f"train.phases: {phases!r} is not a tuple of phase(...), see "
            "recjax.config.phase"
        )


def _check_phases_together(config: ConfigDict) -> None:
    phases = config.train.phases
    names = [phase.name for phase in phases]
    for name in names:
        if not re.fullmatch(r"[\w-]+", name):  # it is a part of file names
            raise UserError(f"train.phases: name {name!r} is not a word")
    if len(set(names)) < len(names):
        raise UserError(f"train.phases: two of {', '.join(names)} have the same name")
    if not any(phase.epochs for phase in phases):
        raise UserError("train.phases: no phase has any epochs; set one to at least 1")


def _check_file_prefix(config: ConfigDict) -> None:
    # The prefix may not lead out of the directory of the data.
    prefix = config.data.file_prefix
    if not re.fullmatch(r"[\w.-]*", prefix) or ".." in prefix:
        raise UserError(f"data.file_prefix: {prefix!r} is not a part of a file name")


def _check_rating_range(config: ConfigDict) -> None:
    limits = tuple(config.data.rating_range)
    if not limits:
        return
    numbers = all(isinstance(limit, int | float) for limit in limits)
    if len(limits) != 2 or not numbers or limits[0] >= limits[1]:
        raise UserError(f"data.rating_range: {limits} is not (lowest, highest)")


def _check_split_fractions(config: ConfigDict) -> None:
    fractions = tuple(config.data.split_fractions)
    if len(fractions) != 2 or min(fractions) <= 0 or sum(fractions) >= 1:
        raise UserError(
            f"data.split_fractions: {fractions} is not (validation, test), both above "
            "0 and their sum below 1"
        )


def _check_columns(config: ConfigDict) -> None:
    keys = ["user", "item", "time", "rating"]
    if config.data.split == "fixed":
        keys.append("history")
    key_of_column: dict[str, str] = {}
    for key in keys:
        column = config.data[key]
        if column and column in key_of_column:
            raise UserError(
                f"data.{key}: {column!r} is already data.{key_of_column[column]}"
            )
        key_of_column[column] = key


def _check_ratings(config: ConfigDict) -> None:
    if config.eval.like_threshold and not config.data.rating:
        raise UserError(
            "eval.like_threshold: needs a column of ratings; set data.rating"
        )
    if config.data.min_rating and not config.data.rating:
        raise UserError("data.min_rating: needs a column of ratings; set data.rating")
    if config.loss.name == "rating" and not config.eval.like_threshold:
        raise UserError(
            "loss.name: 'rating' needs likes; set eval.like_threshold and data.rating"
        )


def _check_filters(config: ConfigDict) -> None:
    if config.data.split == "fixed" and (config.data.min_rating or config.data.k_core):
        raise UserError(
            "data.split: 'fixed' files are not filtered; set data.min_rating and "
            "data.k_core to 0"
        )


def _check_metrics(config: ConfigDict) -> None:
    if not config.eval.ks:
        raise UserError("eval.ks: () has no cut-off; set at least one")
    known = [f"{m}@{k}" for m in ("hr", "ndcg", "mrr") for k in config.eval.ks]
    known.append("auc")
    for key, names in (
        ("train.metric", (config.train.metric,)),
        ("report.metrics", config.report.metrics),
    ):
        for name in names:
            if name not in known:
                raise UserError(f"{key}: {name!r} is not one of {', '.join(known)}")


def _check_items(config: ConfigDict) -> None:
    sources = tuple(config.item_tower.sources)
    if not sources or len(set(sources)) < len(sources):
        raise UserError(
            f"item_tower.sources: {sources} must contain at least one source, and each "
            "only once"
        )
    if "text" in sources and not config.text.template.strip():
        raise UserError("text.template: empty, but item_tower.sources contains 'text'")


def _check_heads(config: ConfigDict) -> None:
    width = config.item_tower.width
    heads = config.user_tower.num_heads
    if config.user_tower.name in HAS_HEADS and width % heads:
        raise UserError(
            f"item_tower.width: {width} is not divisible by user_tower.num_heads, "
            f"{heads}"
        )


def _check_bidirectional(config: ConfigDict) -> None:
    tower = config.user_tower
    if tower.name not in BIDIRECTIONAL:
        return
    if tower.repeats:
        raise UserError(
            f"user_tower.repeats: {tower.name!r} would leak the masked items; set False"
        )
    if config.data.history_length < 2:
        raise UserError(
            f"data.history_length: {tower.name!r} needs at least 2, one of them for "
            "the mask"
        )


def _check_graph(config: ConfigDict) -> None:
    if config.user_tower.name not in USES_GRAPH:
        return
    for phase in config.train.phases:
        name = phase.negatives or config.loss.negatives
        key = f"phase {phase.name}: negatives" if phase.negatives else "loss.negatives"
        if name != "all":
            raise UserError(
                f"{key}: {name!r}; a graph tower reads all items in every step and "
                "needs 'all'"
            )


def _check_fusion(config: ConfigDict) -> None:
    names = tuple(config.head.fusion)
    weights = tuple(config.head.fusion_weights)
    if not weights:
        raise UserError("head.fusion_weights: () has no weight; set at least one")
    if len(set(names)) < len(names):
        raise UserError(f"head.fusion: {names} contains a baseline twice")
    if len(weights) ** len(names) > MAX_FUSION_COMBINATIONS:
        raise UserError(
            f"head.fusion_weights: {len(weights)} weights for each of {len(names)} "
            f"baselines are more than {MAX_FUSION_COMBINATIONS} combinations"
        )


def _check_baselines(config: ConfigDict) -> None:
    for key, names in baseline_keys(config):
        if TEXT in names and "text" not in config.item_tower.sources:
            raise UserError(f"{key}: 'text' needs 'text' in item_tower.sources")
        if "bpr_mf" in names and find_spec("implicit") is None:
            raise UserError(
                f"{key}: 'bpr_mf' needs the library implicit: "
                "pip install 'recjax[baselines]'"
            )


def baseline_keys(config: ConfigDict) -> Iterator[tuple[str, Sequence[str]]]:
    """Yields each key that names baselines, with its value."""
    yield "eval.baselines", config.eval.baselines
    yield "head.fusion", config.head.fusion


def _check_mesh(config: ConfigDict) -> None:
    if jax.process_count() > 1 and config.mesh.model != 1:
        raise UserError(
            f"mesh.model: {config.mesh.model} with several processes; they share the "
            "batch, so set 1"
        )


RULES: tuple[Callable[[ConfigDict], None], ...] = (
    _check_phases_together,
    _check_file_prefix,
    _check_rating_range,
    _check_split_fractions,
    _check_columns,
    _check_ratings,
    _check_filters,
    _check_metrics,
    _check_items,
    _check_heads,
    _check_bidirectional,
    _check_graph,
    _check_fusion,
    _check_baselines,
    _check_mesh,
)
