"""Golden lists: what a saved model must recommend wherever it is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recjax.common.errors import UserError
from recjax.inference.parts import COPY, ITEM, ITEMS

if TYPE_CHECKING:
    from recjax.inference.model import Model

NUM_LISTS = 64
K = 10
MAX_LENGTH = 50  # items of a golden history
# Other processors round differently; items whose scores differ by less may swap.
TOLERANCE = 1e-3  # of the largest score of a list


def make(model: "Model") -> list[dict[str, Any]]:
    """Makes golden lists: of users of the data, or of random histories."""
    rng = np.random.default_rng(0)
    histories = model.parts.histories
    if histories is not None and len(histories):
        size = num_lists(model)
        chosen = np.sort(rng.choice(len(histories), size, replace=False))
        rows = [histories[ITEMS][int(i)].to_numpy()[-MAX_LENGTH:] for i in chosen]
    else:
        lengths = rng.integers(1, 11, NUM_LISTS)
        rows = [rng.integers(model.parts.num_items, size=n) for n in lengths]
    ids = model.parts.items[ITEM]
    given = [ids.gather(row).to_list() for row in rows]
    return [
        {"history": history, "items": items, "scores": scores}
        for history, (items, scores) in zip(given, _lists(model, given), strict=True)
    ]


def num_lists(model: "Model") -> int:
    """Returns the number of golden lists: one per user if there are few users."""
    histories = model.parts.histories
    if histories is None or not len(histories):
        return NUM_LISTS
    return min(NUM_LISTS, len(histories))


def check(lists: list[dict[str, Any]], model: "Model", folder: Path) -> None:
    """Compares golden lists with what a loaded model recommends.

    Raises:
      UserError: they differ by more than rounding, or there are not as many as `make`
        makes.
    """
    if len(lists) != num_lists(model):
        raise UserError(
            f"{folder}: its golden.json has {len(lists)} lists instead of "
            f"{num_lists(model)}; {COPY}"
        )
    found = _lists(model, [golden["history"] for golden in lists])
    for golden, (items, scores) in zip(lists, found, strict=True):
        if not _alike(golden, items, scores):
            raise UserError(
                f"{folder}: does not give the lists of its golden.json (for the "
                f"history {' '.join(golden['history'][-3:])!r}); it was damaged, or "
                "this version of recjax computes something else"
            )


def _lists(
    model: "Model", histories: list[list[str]]
) -> list[tuple[list[str], list[float]]]:
    found = model.recommend(histories=histories, k=K)
    parts = found.partition_by("query", as_dict=True)
    empty = found.clear()  # where the history has every item
    lists = [parts.get((i,), empty) for i in range(len(histories))]
    return [(part["item"].to_list(), part["score"].to_list()) for part in lists]


def _alike(golden: dict[str, Any], items: list[str], scores: list[float]) -> bool:
    if golden["items"] == items and golden["scores"] == scores:
        return True
    before, now = np.array(golden["scores"]), np.array(scores)
    if before.shape != now.shape or not np.isfinite(before).all():
        return False
    if not len(now):
        return True
    tolerance = TOLERANCE * max(np.abs(before).max(initial=0), 1e-6)
    if np.abs(before - now).max(initial=0) > tolerance:
        return False
    # Items at other positions must have nearly the score of that position.
    score_of = dict(zip(items, now, strict=True))
    return all(
        abs(score_of.get(item, now[-1]) - score) <= tolerance
        for item, score in zip(golden["items"], before, strict=True)
    )
