"""The model card: what a saved model is, for readers and for the Hub."""

from typing import Any

from recjax.common.text import escape_markdown
from recjax.data.dataset import NO_SPLIT
from recjax.inference.parts import STATE, TRAINED, ModelParts


def model_card(parts: ModelParts) -> str:
    """Returns the `README.md` of a model directory, with YAML for the Hub."""
    about = parts.about
    header = [
        "---",
        "library_name: recjax",
        "tags:",
        "- recommendation",
        "- jax",
        "---",
        "",
    ]
    trained = int((parts.items[STATE] == TRAINED).sum())
    tower = parts.config.item_tower
    lines = [
        "# A recommender trained with recjax",
        "",
        f"- catalogue: {parts.num_items:,} items, {trained:,} with training events",
        f"- item tower: {', '.join(tower.sources)}; width {tower.width}",
        f"- user tower: {parts.config.user_tower.name}, the newest "
        f"{parts.config.data.history_length} items of a history",
        f"- head: {parts.config.head.name}"
        + (f", fused with {', '.join(parts.fusion)}" if parts.fusion else ""),
    ]
    if parts.encoder is not None:
        lines.append(f"- text of an item: `{parts.config.text.template}`")
    lines += [f"- {key}: {escape_markdown(str(x))}" for key, x in _facts(about)]
    if metrics := about.get("metrics"):
        title = "Metrics on the test split"
        if about.get("split") == NO_SPLIT:
            title = "Metrics on training events (nothing was held out)"
        lines += ["", f"## {title}", ""]
        lines += ["| metric | value | 95% interval |", "|---|---|---|"]
        lines += [
            f"| {name} | {x['value']:.4f} | [{x['low']:.4f}, {x['high']:.4f}] |"
            for name, x in metrics.items()
        ]
    lines += [
        "",
        "## Use",
        "",
        "```python",
        "import recjax",
        "",
        'model = recjax.load("THIS DIRECTORY")',
        "model.recommend(histories=[[...ids, oldest first...]], k=10)",
        "```",
        "",
        "An item that was added later is encoded from its text. It has no id vector, "
        "and its bias is the mean bias of the catalogue. A history without a known "
        "item gets the most popular items.",
    ]
    return "\n".join([*header, *lines])


def _facts(about: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(k, v) for k, v in about.items() if not isinstance(v, dict)]
