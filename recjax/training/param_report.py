"""Tables of parameters: sizes, learning rates, decay, changes."""

from collections.abc import Mapping

from recjax.common.param_paths import FlatParams, count_params
from recjax.reporting.markdown import markdown_table
from recjax.training.optimizer import PhaseRules


def full_param_table(params: FlatParams, rules: PhaseRules, lr: float) -> str:
    """Markdown table of every parameter: path, shape, peak learning rate, decay."""
    rows = []
    for path, x in params.items():
        shape = "x".join(map(str, x.shape)) or "scalar"
        decay = "" if rules.is_frozen(path) else f"{rules.wd_mults[path]:g}"
        rows.append([path, shape, _rate(rules, path, lr), decay])
    return markdown_table(["path", "shape", "learning rate", "decay"], rows)


def param_table(params: FlatParams, rules: PhaseRules, lr: float) -> str:
    """Markdown table of modules: size, peak learning rate, share that decays."""
    modules: dict[tuple[str, str], list[str]] = {}
    for path in params:
        key = _module_of(path), _rate(rules, path, lr)
        modules.setdefault(key, []).append(path)
    rows = []
    for (name, rate), paths in modules.items():
        decayed = count_params({p: params[p] for p in paths if rules.wd_mults[p]})
        size = count_params({p: params[p] for p in paths})
        share = "" if rate == "frozen" else f"{100 * decayed // max(size, 1)}%"
        rows.append([name, f"{size:,}", rate, share])
    return markdown_table(["parameters", "size", "learning rate", "decayed"], rows)


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
    return "frozen" if rules.is_frozen(path) else f"{lr * rules.lr_mults[path]:.3g}"


def _module_of(path: str) -> str:
    """Returns the module a parameter is shown under; in the encoder, its layer."""
    parts = path.split("/")
    last = parts.index("encoder") + 2 if "encoder" in parts else 2
    return "/".join(parts[: min(last, len(parts) - 1)])
