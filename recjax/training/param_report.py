"""Reports of parameters: sizes, learning rates, decay, changes."""

from collections.abc import Mapping

from recjax.common.param_paths import FlatParams
from recjax.reporting.markdown import markdown_table
from recjax.training.optimizer import PhaseRules

FROZEN = "frozen"  # instead of a learning rate


def full_param_table(params: FlatParams, rules: PhaseRules, lr: float) -> str:
    """Markdown table of every parameter: path, shape, peak learning rate, decay."""
    rows = []
    for path, x in params.items():
        shape = "x".join(map(str, x.shape)) or "scalar"
        decay = "" if rules.is_frozen(path) else f"{rules.wd_mults[path]:g}"
        rows.append([path, shape, _rate(rules, path, lr), decay])
    return markdown_table(["path", "shape", "learning rate", "decay"], rows)


def param_summary(params: FlatParams, rules: PhaseRules, lr: float) -> str:
    """Lines with the parts of the model at each peak learning rate, and their sizes."""
    by_rate: dict[str, dict[str, int]] = {}
    for path, x in params.items():
        rate = _rate(rules, path, lr)
        parts = by_rate.setdefault("frozen" if rate == FROZEN else f"at {rate}", {})
        part = _shared_prefix(path, params, rules)
        parts[part] = parts.get(part, 0) + x.size
    lines = []
    for rate, parts in by_rate.items():
        names = _join_numbered(parts)
        sizes = [f"{name} ({size:,})" for name, size in names.items()]
        lines.append(f"  {rate}: {', '.join(sizes)}")
    return "\n".join(lines)


def change_summary(changes: Mapping[str, float], rules: PhaseRules) -> str:
    """One line on how much training changed the parameters; see `change_report`."""
    trained = {p: change for p, change in changes.items() if not rules.is_frozen(p)}
    frozen = [change for path, change in changes.items() if rules.is_frozen(path)]
    most = max(trained, key=trained.__getitem__)
    num_changed = sum(change > 0 for change in trained.values())
    text = (
        f"training changed {num_changed} of {len(trained)} arrays, by up to "
        f"{trained[most]:.2g} ({most})"
    )
    same = sum(change == 0 for change in frozen)
    return f"{text}; {same} of {len(frozen)} frozen ones are bit-identical"


def change_report(changes: Mapping[str, float], rules: PhaseRules) -> str:
    """Lines on how much training changed the parameters of each module.

    Args:
      changes: path -> largest absolute change; 0 only if no bit differs.
      rules: the resolved rules of the phase.
    """
    modules: dict[str, list[float]] = {}
    for path, change in changes.items():
        if not rules.is_frozen(path):
            modules.setdefault(_module_of(path), []).append(change)
    lines = [
        f"  {name}: {sum(c > 0 for c in values)} of {len(values)} arrays changed, "
        f"by up to {max(values):.2g}"
        for name, values in modules.items()
    ]
    if frozen := [c for path, c in changes.items() if rules.is_frozen(path)]:
        same = sum(c == 0 for c in frozen)
        lines.append(f"  frozen: {same} of {len(frozen)} arrays bit-identical")
    return "\n".join(lines)


def _rate(rules: PhaseRules, path: str, lr: float) -> str:
    """Returns the peak learning rate of a parameter, as text."""
    return FROZEN if rules.is_frozen(path) else f"{lr * rules.lr_mults[path]:.3g}"


def _shared_prefix(path: str, params: FlatParams, rules: PhaseRules) -> str:
    """Returns the shortest prefix of a path whose parameters share its multiplier."""
    parts = path.split("/")
    for length in range(1, len(parts)):
        prefix = "/".join(parts[:length])
        within = (p for p in params if p.startswith(f"{prefix}/"))
        if all(rules.lr_mults[p] == rules.lr_mults[path] for p in within):
            return prefix
    return path


def _join_numbered(sizes: Mapping[str, int]) -> dict[str, int]:
    """Joins names with consecutive numbers: `layer_0`, `layer_1` -> `layer_0-1`."""
    joined: list[tuple[str, int, int, int]] = []  # stem, first and last number, size
    for name, size in sizes.items():
        stem, _, digits = name.rpartition("_")
        number = int(digits) if stem and digits.isdigit() else -1
        if joined and number > 0:
            before, first, last, total = joined[-1]
            if (before, last) == (stem, number - 1):
                joined[-1] = stem, first, number, total + size
                continue
        joined.append((stem if number >= 0 else name, number, number, size))
    return {
        f"{stem}_{first}-{last}"
        if last > first
        else stem + (f"_{first}" if first >= 0 else ""): size
        for stem, first, last, size in joined
    }


def _module_of(path: str) -> str:
    """Returns the module a parameter is shown under; in the encoder, its layer."""
    parts = path.split("/")
    last = parts.index("encoder") + 2 if "encoder" in parts else 2
    return "/".join(parts[: min(last, len(parts) - 1)])
