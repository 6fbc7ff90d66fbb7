"""Markdown tables."""

from collections.abc import Iterable, Mapping, Sequence

from recjax.common.intervals import Interval


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table; all columns but the first are right-aligned."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])])

    def show(line: Sequence[str]) -> str:
        cells = [c.rjust(w) for c, w in zip(line, widths, strict=True)]
        return " | ".join(["| " + line[0].ljust(widths[0]), *cells[1:]]) + " |"

    return "\n".join(map(show, lines))


def result_table(
    named: Mapping[str, Mapping[str, Interval]], names: Sequence[str]
) -> str:
    """Returns a table of test metrics with their 95% intervals, one row per name."""
    rows = [
        [row, *(interval_cell(metrics[name]) for name in names)]
        for row, metrics in named.items()
    ]
    return markdown_table(["test", *names], rows)


def interval_cell(metric: Interval) -> str:
    """Formats a value with its interval: `0.1234 [0.1011, 0.1492]`."""
    return f"{metric['value']:.4f} [{metric['low']:.4f}, {metric['high']:.4f}]"
