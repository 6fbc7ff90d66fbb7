"""The data report, and warnings about misleading evaluation settings."""

from typing import Any

import numpy as np

from recjax.data.dataset import Data, Examples, count_events
from recjax.data.text.tokenize import Tokens


def data_report(data: Data, tokens: Tokens | None, config: Any) -> str:
    """Sizes of the data set, its splits and its texts."""
    lengths = data.train.lengths() + 1
    events_N = count_events(data)
    events = int(events_N.sum())
    cells = max(len(data.user_ids) * data.num_items, 1)

    def cold(rows: Examples) -> str:
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
    for name, (given, used) in data.row_counts.items():
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
