"""Tables of polars and of pandas; pandas itself is not needed."""

from typing import Any

import polars as pl


def is_frame(value: Any) -> bool:
    """Returns whether a value is a table of polars or of pandas."""
    return isinstance(value, pl.DataFrame) or hasattr(value, "iloc")


def to_polars(frame: Any) -> pl.DataFrame:
    """Returns a table as a polars frame; a pandas one is converted column by column."""
    if isinstance(frame, pl.DataFrame):
        return frame
    return pl.DataFrame({str(name): frame[name].to_list() for name in frame.columns})


def like(frame: pl.DataFrame, given: Any) -> Any:
    """Returns a table as a pandas frame if a pandas frame was given."""
    if is_frame(given) and not isinstance(given, pl.DataFrame):
        return type(given)(frame.to_dict(as_series=False))
    return frame
