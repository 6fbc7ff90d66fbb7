"""The results page of a run: tables, subgroups, ratings, examples."""

from collections.abc import Mapping, Sequence
from typing import Any

from recjax.evaluation.subgroups import MIN_GROUP_ROWS
from recjax.reporting.markdown import interval_cell, markdown_table, result_table


def subgroup_table(buckets: Mapping[str, Any]) -> str:
    """Rows of groups with their number of test rows, metrics and intervals."""
    named = {
        f"{grouping}: {group}".replace("|", r"\|"): dict(values)
        for grouping, found in buckets.items()
        for group, values in found["groups"].items()
    }
    rows = {name: str(values.pop("rows")) for name, values in named.items()}
    names = list(next(iter(named.values())))
    body = [
        [name, rows[name], *(interval_cell(values[metric]) for metric in names)]
        for name, values in named.items()
    ]
    return markdown_table(["rows of the test", "n", *names], body)


def gap_text(buckets: Mapping[str, Any]) -> str:
    """The largest differences between groups of users, one line a column."""
    lines = []
    for grouping, found in buckets.items():
        gaps = ", ".join(
            f"{metric} {interval_cell(gap)} ({gap['best']} over {gap['worst']})"
            for metric, gap in found.get("gap", {}).items()
        )
        lines += [f"- {grouping}: {gaps}"] if gaps else []
    return "\n".join(lines)


def beyond_accuracy_table(named: Mapping[str, Mapping[str, float]]) -> str:
    """Rows of what lists are like; empty where a row has no such measure."""
    names = list(dict.fromkeys(name for values in named.values() for name in values))
    rows = [
        [row, *(f"{values[name]:.4f}" if name in values else "" for name in names)]
        for row, values in named.items()
    ]
    return markdown_table(["beyond accuracy", *names], rows)


def rating_text(r: Mapping[str, float]) -> str:
    """Confusion matrix, accuracy and log loss."""
    rows = [
        ["like", str(r["true_positive"]), str(r["false_negative"])],
        ["no like", str(r["false_positive"]), str(r["true_negative"])],
    ]
    return (
        markdown_table(["truth", "says like", "says no like"], rows)
        + f"\n\naccuracy {r['accuracy']:.3f}, AUC {r['auc']:.3f}, log loss "
        f"{r['log_loss']:.4f} (always saying the share of likes on validation: "
        f"{r['log_loss_prior']:.4f})"
    )


def results_text(final: dict[str, Any], metrics: Sequence[str]) -> str:
    """`results.md`: tables, ratings, examples, protocol and time."""
    named = dict(final["baselines"])
    if "zero_shot" in final:
        named["zero-shot (pretrained encoder)"] = final["zero_shot"]
    lists = {name: values["beyond_accuracy"] for name, values in named.items()}
    for name, phase in final["phases"].items():
        weights = [f", {w:g} x {of}" for of, w in phase.get("fusion", {}).items()]
        after = f"after {name} ({phase['epochs']} epochs{''.join(weights)})"
        named[after], lists[after] = phase["test"], phase["beyond_accuracy"]
    last = list(final["phases"].values())[-1]
    p = final["protocol"]
    parts = [
        result_table(named, metrics),
        f"Values and 95% bootstrap intervals over users. {p['split']}, ranking "
        f"{p['candidates']}, seen items {'' if p['mask_seen'] else 'not '}masked, ties "
        f"{p['ties']}; protocol {final['fingerprint']}, seed {final['seed']}.",
    ]
    parts += [
        beyond_accuracy_table(lists),
        "Coverage and Gini index over the catalogue; novelty in bits; head: share of "
        "the most popular items, those with a third of the training events; diversity: "
        "cosine distance by each row's own vectors.",
        subgroup_table(last["subgroups"]),
    ]
    if gaps := gap_text(last["subgroups"]):
        parts.append(
            "Largest differences between groups of users, each of at least "
            f"{MIN_GROUP_ROWS} rows, chosen for being the largest:\n\n{gaps}"
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
