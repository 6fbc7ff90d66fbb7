"""Markdown tables."""

from collections.abc import Iterable, Mapping, Sequence

from recjax.common.intervals import Interval


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown table with aligned columns; all but the first are right-aligned."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]

    def show(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        return "| " + " | ".join(cells) + " |"

    return "\n".join([show(lines[0]), show(rule), *map(show, lines[1:])])


def result_table(
    named: Mapping[str, Mapping[str, Interval]], names: Sequence[str]
) -> str:
    """Rows of metrics with their 95% intervals."""
    rows = [
        [row, *(interval_cell(metrics[name]) for name in names)]
        for row, metrics in named.items()
    ]
    return markdown_table(["test", *names], rows)


def interval_cell(x: Interval) -> str:
    """A value with its interval: `0.1234 [0.1, 0.2]`."""
    return f"{x['value']:.4f} [{x['low']:.4f}, {x['high']:.4f}]"
