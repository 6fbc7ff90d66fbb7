"""The results page of a run, `results.md`: tables, subgroups, ratings, examples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from recjax.common.text import escape_markdown, visible
from recjax.data.dataset import NO_SPLIT
from recjax.reporting.markdown import interval_cell, markdown_table, result_table


def summary_text(final: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Returns what a run prints at its end: metrics, examples and seconds.

    Args:
      final: the content of `results.json`.
      metrics: the metrics of the table.
    """
    tested = {name: row["test"] for name, row in named_rows(final).items()}
    parts = [result_table(tested, metrics), protocol_text(final)]
    parts += [*examples_text(final, visible), seconds_text(final)]
    return "\n\n".join(parts)


def results_page(final: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Returns the content of `results.md`; the arguments are those of `summary_text`.

    What Markdown would interpret in text from data is escaped.
    """
    rows = named_rows(final)
    last = list(final["phases"].values())[-1]
    parts = [
        result_table({name: row["test"] for name, row in rows.items()}, metrics),
        protocol_text(final),
        beyond_accuracy_table(
            {name: row["beyond_accuracy"] for name, row in rows.items()}
        ),
        "Coverage: share of the catalogue that is recommended to anyone. Gini index: 0 "
        "if all items are recommended equally often, near 1 if few items take all "
        "recommendations. Novelty: mean information of the items in bits; rare items "
        "have more. Head: share of recommendations from the most popular items, which "
        "together have a third of the training events. Diversity: mean cosine distance "
        "between the items of a list, by the item vectors of the same row.",
        item_table(rows),
        "Test examples by the training events of the target: none (new), 1 to 4 (cold) "
        "or more (warm).",
        subgroup_table(last["subgroups"]),
        "Subgroups are those of the last phase. item: training events of the target "
        "(new: none, cold: few, warm: more); history: number of items in the history; "
        "popularity: third of the training events that the target belongs to.",
    ]
    if gaps := gap_text(last["subgroups"]):
        parts.append(gaps)
    if last["rating"]:
        parts.append(rating_text(last["rating"]))
    parts += [*examples_text(final, escape_markdown), seconds_text(final)]
    return "\n\n".join(parts)


def named_rows(final: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the results of all systems, in the order of the tables.

    Baselines come first, then the zero-shot encoder and the phases.
    """
    rows = {}
    references = dict(final["baselines"])
    if "zero_shot" in final:
        source = "train.init_from" if final.get("initial") else "pretrained encoder"
        references[f"zero-shot ({source})"] = final["zero_shot"]
    for name, metrics in references.items():
        rows[name] = {"test": metrics, **metrics}
    for name, phase in final["phases"].items():
        fused = phase.get("fusion", {}).items()
        weights = "".join(f", {weight:g} x {baseline}" for baseline, weight in fused)
        biases = phase.get("event_bias", {}) | phase.get("seen_bias", {})
        weights += "".join(
            f", {bias:+g} for {group} items" for group, bias in biases.items() if bias
        )
        epochs = "1 epoch" if phase["epochs"] == 1 else f"{phase['epochs']} epochs"
        kept = phase.get("kept_epoch", phase["epochs"])  # older results lack it
        if not kept:
            epochs = f"nothing kept of {epochs}"
        elif kept < phase["epochs"]:
            epochs = f"epoch {kept} of {phase['epochs']}"
        rows[f"after phase {name} ({epochs}{weights})"] = phase
    return rows


def examples_text(
    final: Mapping[str, Any], show: Callable[[str], str]
) -> Iterator[str]:
    """Yields the example recommendations of the last phase, if there are any."""
    if examples := list(final["phases"].values())[-1]["examples"]:
        lines = "\n".join(f"- {show(line)}" for line in examples)
        yield f"Recommendations for some users, by their newest items:\n\n{lines}"


def seconds_text(final: Mapping[str, Any]) -> str:
    """Lists the seconds that the parts of a run took."""
    seconds = ", ".join(f"{name} {x:.1f}" for name, x in final["seconds"].items())
    return f"Seconds: {seconds}."


def protocol_text(final: Mapping[str, Any]) -> str:
    """Describes the evaluation protocol in plain sentences."""
    protocol = final["protocol"]
    masked = "are" if protocol["mask_seen"] else "are not"
    in_sample = ""
    if protocol["split"] == NO_SPLIT:
        in_sample = (
            "In-sample: nothing was held out, so the values say how well the model "
            "fits its training events, not how well it recommends. "
        )
    return (
        f"{in_sample}"
        "Values with 95% bootstrap intervals over users. "
        f"Split: {protocol['split']}; candidates: {protocol['candidates']}; seen items "
        f"{masked} masked; ties: {protocol['ties']}. "
        f"Protocol {final['fingerprint']}, seed {final['seed']}."
    )


def subgroup_table(subgroups: Mapping[str, Any]) -> str:
    """Returns a table of subgroups with their size, metrics and intervals."""
    body = []
    for grouping, found in subgroups.items():
        for group, values in found["groups"].items():
            name = escape_markdown(f"{grouping}: {group}")
            metrics = {key: x for key, x in values.items() if key != "rows"}
            cells = map(interval_cell, metrics.values())
            body.append([name, str(values["rows"]), *cells])
    return markdown_table(["subgroup of the test", "examples", *metrics], body)


def item_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table of all systems by the training events of the target."""
    first = next(iter(rows.values()))["subgroups"]["item"]["groups"]
    columns = [
        (group, metric)
        for group, values in first.items()
        for metric in values
        if metric != "rows"
    ]
    body = []
    for name, row in rows.items():
        found = row["subgroups"]["item"]["groups"]
        cells = [interval_cell(found[group][metric]) for group, metric in columns]
        body.append([name, *cells])
    header = [f"{group}: {metric}" for group, metric in columns]
    return markdown_table(["test", *header], body)


def gap_text(subgroups: Mapping[str, Any]) -> str:
    """Lists the largest gaps between groups of users; empty if there are none."""
    lines = []
    for grouping, found in subgroups.items():
        if gaps := found.get("largest_gap"):
            min_rows = found["min_rows"]
            described = ", ".join(
                f"{metric} {interval_cell(gap)} "
                f"({escape_markdown(gap['best'])} over {escape_markdown(gap['worst'])})"
                for metric, gap in gaps.items()
            )
            lines.append(f"- {escape_markdown(grouping)}: {described}")
    if not lines:
        return ""
    return (
        "Largest gap between two groups of users, among groups of at least "
        f"{min_rows} test examples. The intervals do not correct for selecting the "
        "extreme pair.\n\n" + "\n".join(lines)
    )


def beyond_accuracy_table(named: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a table of beyond-accuracy metrics; a missing metric is left empty."""
    names = list(dict.fromkeys(name for values in named.values() for name in values))
    rows = [
        [row, *(f"{values[name]:.4f}" if name in values else "" for name in names)]
        for row, values in named.items()
    ]
    return markdown_table(["beyond accuracy", *names], rows)


def rating_text(rating: Mapping[str, float]) -> str:
    """Reports the confusion matrix, accuracy, AUC and log loss of likes."""
    rows = [
        ["liked", str(rating["true_positive"]), str(rating["false_negative"])],
        ["not liked", str(rating["false_positive"]), str(rating["true_negative"])],
    ]
    table = markdown_table(["rating", "predicted liked", "predicted not liked"], rows)
    return (
        "Whether users liked the items of the test, predicted from the scores. "
        "Probabilities are calibrated on the validation split.\n\n"
        f"{table}\n\n"
        f"Accuracy {rating['accuracy']:.3f}, AUC {rating['auc']:.3f}, log loss "
        f"{rating['log_loss']:.4f} (always predicting the share of likes in the "
        f"validation split: {rating['log_loss_prior']:.4f})."
    )
