"""Parameter trees as flat `{path: array}` dicts, and rules over their paths."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from recjax.common.errors import UserError

TEXT_PARAMS = "items/text/"  # prefix of the text source's parameters
FlatParams = dict[str, Any]
Rules = Sequence[tuple[str, Any]]
_NO_MATCH = object()  # unlike None, never the value of a rule


def flatten_params(tree: Mapping[str, Any]) -> FlatParams:
    """Turns a nested dict into `{'items/text/encoder/layer_0/...': leaf}`."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten_params(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten_params`."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def match_rules(rules: Rules, paths: Iterable[str], name: str) -> FlatParams:
    """Maps every path to the value of the first rule whose regex matches all of it.

    Raises:
      UserError: a path that no rule matches, or a malformed rule. The message begins
        with `name`, the config key of the rules.
    """
    compiled = []
    for rule in rules:
        # A list of one rule that lacks its comma iterates over the rule's parts.
        if isinstance(rule, str | float | int) or len(rule) != 2:
            raise UserError(f"{name}: {rule!r} is not a pair (regex, value)")
        pattern, value = rule
        try:
            compiled.append((re.compile(pattern), value))
        except (re.error, TypeError) as e:
            raise UserError(f"{name}: {pattern!r} is not a regex ({e})") from None
    values = {}
    for path in paths:
        matches = (value for regex, value in compiled if regex.fullmatch(path))
        values[path] = next(matches, _NO_MATCH)
    if missed := [path for path, value in values.items() if value is _NO_MATCH]:
        raise UserError(
            f"{name}: no rule matches {', '.join(missed)}; "
            "end the list with ('.*', value)"
        )
    return values


def unused_rules(rules: Rules, paths: Sequence[str]) -> list[tuple[str, Any]]:
    """Returns rules other than '.*' that have no effect: they may be misspelt."""
    # A rule with a value has to be the first match of a path. One with None, which
    # freezes, may match only paths that an earlier rule decides.
    numbered = [(pattern, i) for i, (pattern, _) in enumerate(rules)]
    first_matches = set(match_rules(numbered, paths, "rules").values())
    return [
        (pattern, value)
        for i, (pattern, value) in enumerate(rules)
        if pattern != ".*"
        and i not in first_matches
        and (value is not None or not any(re.fullmatch(pattern, p) for p in paths))
    ]


def count_params(flat: Mapping[str, Any]) -> int:
    """Number of scalars in all parameters."""
    return sum(int(np.prod(x.shape)) for x in flat.values())


def tree_bytes(tree: Any) -> int:
    """Size in bytes of all arrays of a pytree, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def max_change(before: FlatParams, after: FlatParams) -> dict[str, float]:
    """Largest absolute change of each parameter; 0.0 only if no bit differs."""
    changes = {}
    for path, old in jax.device_get(before).items():
        new = np.asarray(after[path])
        changes[path] = 0.0
        # Compares bytes, because 0.0 equals -0.0 and NaN does not equal itself.
        if old.tobytes() != new.tobytes():
            delta = np.abs(new.astype(np.float64) - old.astype(np.float64)).max()
            least = float(np.finfo(np.float32).tiny)
            changes[path] = max(
                float(np.nan_to_num(delta, nan=np.inf, posinf=np.inf)), least
            )
    return changes
