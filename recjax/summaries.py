"""What people read: data report, parameter tables, results, recommendations."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from recjax import trees
from recjax.buckets import LEAST_ROWS, count_events
from recjax.data.rows import Data, Rows
from recjax.data.text import Tokens
from recjax.metrics import Interval
from recjax.optim import Optim


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown table with aligned columns; all but the first are right-aligned."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]

    def show(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        return "| " + " | ".join(cells) + " |"

    return "\n".join([show(lines[0]), show(rule), *map(show, lines[1:])])


def data_report(data: Data, tokens: Tokens | None, config: Any) -> str:
    """Sizes of the data set, its splits and its texts."""
    lengths = data.train.lengths() + 1
    events_N = count_events(data)
    events = int(events_N.sum())
    cells = max(len(data.user_ids) * data.num_items, 1)

    def cold(rows: Rows) -> str:
        share, again = (events_N[rows.targets_R] == 0).mean(), rows.repeats_R.mean()
        had = f", {again:.1%} had by their users before" if again else ""
        return f"{len(rows):,} rows, {share:.1%} of the targets never trained on{had}"

    known = ", ".join(data.users.columns[1:])
    known = known and f", with {known}"
    median, most = int(np.median(lengths)), int(lengths.max())
    longer = (lengths > config.data.history_length).mean()
    splits = (data.train, data.valid, data.test)
    used = len(np.unique(np.concatenate([rows.users_R for rows in splits])))
    few = len(data.user_ids) - used
    alone = f", {few:,} of them with too few events: not used" if few else ""
    rows = [
        ("users", f"{len(data.user_ids):,}{known}{alone}"),
        ("items", f"{data.num_items:,}, {(events_N == 0).sum():,} without an event"),
        ("training events", f"{events:,} ({events / cells:.2%} of users x items)"),
        ("training rows", f"{len(data.train):,}"),
        ("events a row", f"median {median}, most {most}, {longer:.0%} above H"),
        ("validation", cold(data.valid)),
        ("test", cold(data.test)),
    ]
    for name, (given, used) in data.rows.items():
        if given > used:
            rows.append((name, f"{given - used:,} of {given:,} rows rejected"))
    rows += [(what, f"{count:,}") for what, count in data.left_out.items()]
    if data.held_out_N.any():
        rows.append(("items held out", f"{data.held_out_N.sum():,}"))
    if tokens is not None:
        t = tokens.lengths
        full = (t == config.text.max_tokens).mean()
        limit = f", {full:.1%} have text.max_tokens" if full else ""
        rows.append(("tokens an item", f"mean {t.mean():.1f}, most {t.max()}{limit}"))
        if empty := int(data.blank(config.text.template).sum()):
            rows.append(("items without text", f"{empty:,}"))
    rows.append(("protocol", data.fingerprint))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in rows)


def protocol_warnings(data: Data, config: Any) -> list[str]:
    """What of `config.eval` makes figures that say other than they seem to."""
    found = []
    if config.candidates:
        found.append(
            f"each target is ranked among {config.candidates} drawn items alone; that "
            "can order models otherwise than the whole catalogue does (Krichene and "
            "Rendle, KDD 2020)"
        )
    if config.mask_seen and (again := data.test.repeats_R.mean()):
        found.append(
            f"{again:.1%} of the test's targets are items that their users had before; "
            "with eval.mask_seen these alone of what was had can be ranked, which "
            "tells them apart: eval.mask_seen=False ranks all"
        )
    return found


def full_param_table(params: trees.Flat, optim: Optim, lr: float) -> str:
    """Markdown: path, shape, peak learning rate and decay of every parameter."""
    rows = []
    for path, x in params.items():
        mult = optim.lr_mults[path]
        shape = "x".join(map(str, x.shape)) or "scalar"
        rate = "frozen" if mult is None else f"{lr * mult:.3g}"
        decay = "" if mult is None else f"{optim.wd_mults[path]:g}"
        rows.append([path, shape, rate, decay])
    return table(["path", "shape", "learning rate", "decay"], rows)


def param_table(params: trees.Flat, optim: Optim, lr: float) -> str:
    """Parameters by module, with size, peak learning rate and what decays."""
    modules: dict[tuple[str, str], list[str]] = {}
    for path in params:
        mult = optim.lr_mults[path]
        rate = "frozen" if mult is None else f"{lr * mult:.3g}"
        modules.setdefault((_module(path), rate), []).append(path)
    rows = []
    for (name, rate), paths in modules.items():
        decayed = sum(trees.count({p: params[p]}) for p in paths if optim.wd_mults[p])
        size = trees.count({p: params[p] for p in paths})
        share = "" if rate == "frozen" else f"{100 * decayed // max(size, 1)}%"
        rows.append([name, f"{size:,}", rate, share])
    return table(["parameters", "size", "learning rate", "decayed"], rows)


def change_report(changes: Mapping[str, float], optim: Optim) -> str:
    """What training did to the parameters, by module."""
    groups: dict[str, list[float]] = {}
    for path, change in changes.items():
        if optim.lr_mults[path] is not None:
            groups.setdefault(_module(path), []).append(change)
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


def result_table(
    named: Mapping[str, Mapping[str, Interval]], names: Sequence[str]
) -> str:
    """Rows of metrics with their 95% intervals."""
    rows = [
        [row, *(_cell(metrics[name]) for name in names)]
        for row, metrics in named.items()
    ]
    return table(["test", *names], rows)


def bucket_table(buckets: Mapping[str, Any]) -> str:
    """Rows of groups with their number of test rows, metrics and intervals."""
    named = {
        f"{grouping}: {group}".replace("|", r"\|"): dict(values)
        for grouping, found in buckets.items()
        for group, values in found["groups"].items()
    }
    rows = {name: str(values.pop("rows")) for name, values in named.items()}
    names = list(next(iter(named.values())))
    body = [
        [name, rows[name], *(_cell(values[metric]) for metric in names)]
        for name, values in named.items()
    ]
    return table(["rows of the test", "n", *names], body)


def gap_text(buckets: Mapping[str, Any]) -> str:
    """The largest differences between groups of users, one line a column."""
    lines = []
    for grouping, found in buckets.items():
        gaps = ", ".join(
            f"{metric} {_cell(gap)} ({gap['best']} over {gap['worst']})"
            for metric, gap in found.get("gap", {}).items()
        )
        lines += [f"- {grouping}: {gaps}"] if gaps else []
    return "\n".join(lines)


def beyond_table(named: Mapping[str, Mapping[str, float]]) -> str:
    """Rows of what lists are like; empty where a row has no such measure."""
    names = list(dict.fromkeys(name for values in named.values() for name in values))
    rows = [
        [row, *(f"{values[name]:.4f}" if name in values else "" for name in names)]
        for row, values in named.items()
    ]
    return table(["beyond accuracy", *names], rows)


def rating_text(r: Mapping[str, float]) -> str:
    """Confusion matrix, accuracy and log loss."""
    rows = [
        ["like", str(r["true_positive"]), str(r["false_negative"])],
        ["no like", str(r["false_positive"]), str(r["true_negative"])],
    ]
    return (
        table(["truth", "says like", "says no like"], rows)
        + f"\n\naccuracy {r['accuracy']:.3f}, AUC {r['auc']:.3f}, log loss "
        f"{r['log_loss']:.4f} (always saying the share of likes on validation: "
        f"{r['log_loss_prior']:.4f})"
    )


def results_text(final: dict[str, Any], metrics: Sequence[str]) -> str:
    """`results.md`: tables, ratings, examples, protocol and time."""
    named = dict(final["baselines"])
    if "before" in final:
        named["before (encoder as it came)"] = final["before"]
    lists = {name: values["beyond"] for name, values in named.items()}
    for name, phase in final["phases"].items():
        weights = [f", {w:g} x {of}" for of, w in phase.get("memory", {}).items()]
        after = f"after {name} ({phase['epochs']} epochs{''.join(weights)})"
        named[after], lists[after] = phase["test"], phase["beyond"]
    last = list(final["phases"].values())[-1]
    p = final["protocol"]
    parts = [
        result_table(named, metrics),
        f"Values and 95% bootstrap intervals over users. {p['split']}, ranking "
        f"{p['candidates']}, seen items {'' if p['mask_seen'] else 'not '}masked, ties "
        f"{p['ties']}; protocol {final['fingerprint']}, seed {final['seed']}.",
    ]
    parts += [
        beyond_table(lists),
        "Coverage and Gini index over the catalogue; novelty in bits; head: share of "
        "the most popular items, those with a third of the training events; diversity: "
        "cosine distance by each row's own vectors.",
        bucket_table(last["buckets"]),
    ]
    if gaps := gap_text(last["buckets"]):
        parts.append(
            "Largest differences between groups of users, each of at least "
            f"{LEAST_ROWS} rows, chosen for being the largest:\n\n{gaps}"
        )
    if last["rating"]:
        parts.append(
            "Like or not, by the score of the item that was chosen (probability "
            "calibrated on validation):"
        )
        parts.append(rating_text(last["rating"]))
    parts.append("\n".join(f"- {line}" for line in last["examples"]))
    parts.append(
        "Seconds: " + ", ".join(f"{k} {v:.1f}" for k, v in final["seconds"].items())
    )
    return "\n\n".join(parts)


def examples(
    data: Data,
    titles: Sequence[str],
    top_RxK: np.ndarray,
    *,
    count: int,
    like: float,
    show: int = 3,
) -> list[str]:
    """`liked X, Y -> Z` for users spread over the test rows.

    X, Y are the newest items of the history that were rated at least `like`, Z the
    best candidates. Where ratings are not known, or `like` is 0, choosing an item
    counts as liking it.
    """
    titles = [f'"{title}"' if "," in title else title for title in titles]
    lines = []
    for row in np.linspace(0, len(data.test) - 1, count).astype(int):
        liked = ", ".join(titles[i] for i in data.test.liked(row, like)[-show:])
        best = ", ".join(titles[i] for i in top_RxK[row, :show] if i >= 0)
        lines.append(f"liked {liked or 'nothing'} -> {best}")
    return lines


def compact_config(config: Any) -> str:
    """One line a section."""
    lines = []
    for section, values in config.items():
        text = values.to_json() if hasattr(values, "to_json") else json.dumps(values)
        lines.append(f"  {section}: {text}")
    return "\n".join(lines)


def flat_config(config: Any) -> dict[str, Any]:
    """`{"item_tower.width": 64, ...}`."""
    return _flat(json.loads(config.to_json()))


def config_changes(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: tuple[str, str] = ("there", "here"),
) -> str:
    """The keys in which two configs, or protocols, differ."""
    a, b = _flat(old), _flat(new)
    keys = [k for k in {**a, **b} if a.get(k) != b.get(k)]
    x, y = where
    shown = [f"{k}: {a.get(k)} {x}, {b.get(k)} {y}" for k in keys[:3]]
    return "; ".join(shown) + (f"; {len(keys) - 3} more" if len(keys) > 3 else "")


def _flat(nested: Mapping[str, Any], stem: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{stem}{key}.")
        elif value and isinstance(value, list) and isinstance(value[0], dict):
            for i, part in enumerate(value):
                flat |= _flat(part, f"{stem}{key}[{i}].")
        else:
            flat[stem + key] = value
    return flat


def _cell(x: Interval) -> str:
    return f"{x['value']:.4f} [{x['low']:.4f}, {x['high']:.4f}]"


def _module(path: str) -> str:
    """The module that a parameter is shown under; inside the encoder, the layer."""
    parts = path.split("/")
    last = parts.index("encoder") + 2 if "encoder" in parts else 2
    return "/".join(parts[: min(last, len(parts) - 1)])
