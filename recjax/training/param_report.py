"""Tables of parameters: sizes, learning rates, decay, changes."""

from collections.abc import Mapping

from recjax.common.param_paths import FlatParams, count_params
from recjax.reporting.markdown import markdown_table
from recjax.training.optimizer import Optimizer


def full_param_table(params: FlatParams, optim: Optimizer, lr: float) -> str:
    """Markdown: path, shape, peak learning rate and decay of every parameter."""
    rows = []
    for path, x in params.items():
        mult = optim.lr_mults[path]
        shape = "x".join(map(str, x.shape)) or "scalar"
        rate = "frozen" if mult is None else f"{lr * mult:.3g}"
        decay = "" if mult is None else f"{optim.wd_mults[path]:g}"
        rows.append([path, shape, rate, decay])
    return markdown_table(["path", "shape", "learning rate", "decay"], rows)


def param_table(params: FlatParams, optim: Optimizer, lr: float) -> str:
    """Parameters by module, with size, peak learning rate and what decays."""
    modules: dict[tuple[str, str], list[str]] = {}
    for path in params:
        mult = optim.lr_mults[path]
        rate = "frozen" if mult is None else f"{lr * mult:.3g}"
        modules.setdefault((_module_of(path), rate), []).append(path)
    rows = []
    for (name, rate), paths in modules.items():
        decayed = sum(count_params({p: params[p]}) for p in paths if optim.wd_mults[p])
        size = count_params({p: params[p] for p in paths})
        share = "" if rate == "frozen" else f"{100 * decayed // max(size, 1)}%"
        rows.append([name, f"{size:,}", rate, share])
    return markdown_table(["parameters", "size", "learning rate", "decayed"], rows)


def change_report(changes: Mapping[str, float], optim: Optimizer) -> str:
    """What training did to the parameters, by module."""
    groups: dict[str, list[float]] = {}
    for path, change in changes.items():
        if optim.lr_mults[path] is not None:
            groups.setdefault(_module_of(path), []).append(change)
    lines = [
        f"  {name}: {sum(c > 0 for c in values)} of {len(values)} arrays changed, "
        f"by up to {max(values):.2g}"
        for name, values in groups.items()
    ]
    frozen = [c for path, c in changes.items() if optim.lr_mults[path] is None]
    if frozen:
        moved = sum(c > 0 for c in frozen)
        lines.append(
            f"  frozen: {len(frozen) - moved} of {len(frozen)} arrays bit-identical"
        )
    return "\n".join(lines)


def _module_of(path: str) -> str:
    """The module that a parameter is shown under; inside the encoder, the layer."""
    parts = path.split("/")
    last = parts.index("encoder") + 2 if "encoder" in parts else 2
    return "/".join(parts[: min(last, len(parts) - 1)])
