"""Packs several short texts into each row of tokens.

Item texts are short and of uneven length. Padding each of them to the longest would
spend most of the encoder's time on padding, so texts share rows of L tokens. A segment
number restricts each token's attention to its own text.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recjax.data.padding import pad_to, round_up


@dataclass(frozen=True)
class Tokens:
    """Token ids of the N item texts."""

    ids: np.ndarray  # one text after another
    offsets: np.ndarray  # N + 1 bounds of the texts in `ids`
    unknown_share: float = 0.0  # of tokens outside the vocabulary, without special ones

    def count_distinct(self) -> int:
        """Counts the texts with different tokens."""
        bounds = itertools.pairwise(self.offsets)
        return len({self.ids[start:end].tobytes() for start, end in bounds})

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each text, special tokens included."""
        return np.diff(self.offsets)


class Packed(NamedTuple):
    """U texts in R rows of L tokens; padding is 0, and U in `owner_RxL`."""

    index_RxL: np.ndarray  # of each token in `Tokens.ids`
    position_RxL: np.ndarray  # of the token in its text
    segment_RxL: np.ndarray  # 1, 2, ... for the texts of a row
    owner_RxL: np.ndarray  # which of the U texts the token belongs to
    first_U: np.ndarray  # row * L + column of each text's first token

    def fill_up(self, num_rows: int, num_texts: int | None = None) -> "Packed":
        """Pads to `num_rows` rows and to `num_texts` texts, which are empty."""
        size = len(self.first_U) if num_texts is None else num_texts

        def pad(values_RxL: np.ndarray) -> np.ndarray:
            return np.pad(values_RxL, ((0, num_rows - len(values_RxL)), (0, 0)))

        index_RxL, position_RxL, segment_RxL = map(pad, self[:3])
        owner_RxL = np.where(segment_RxL > 0, pad(self.owner_RxL), np.int32(size))
        first_U = pad_to(self.first_U, size, 0)
        return Packed(index_RxL, position_RxL, segment_RxL, owner_RxL, first_U)


@dataclass(frozen=True)
class Packing:
    """Packs the texts of a catalogue."""

    tokens: Tokens
    width: int  # L, at least the length of the longest text
    multiple: int = 1  # R becomes a multiple of it

    def pack(self, items_U: np.ndarray) -> Packed:
        """Packs the texts of some items; -1 is padding and has no text."""
        tokens, width = self.tokens, self.width
        lengths = np.where(items_U >= 0, tokens.lengths[items_U], 0)
        rows = _choose_rows(lengths, width)
        shape = (max(len(rows), 1), width)
        packed = Packed(
            np.zeros(shape, np.int32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.int32),
            owner_RxL=np.full(shape, len(items_U), np.int32),
            first_U=np.zeros(len(items_U), np.int32),
        )
        for row, texts in enumerate(rows):
            start = 0
            for segment, u in enumerate(texts, 1):
                columns = slice(start, start + lengths[u])
                first = tokens.offsets[items_U[u]]
                packed.index_RxL[row, columns] = np.arange(first, first + lengths[u])
                packed.position_RxL[row, columns] = np.arange(lengths[u])
                packed.segment_RxL[row, columns] = segment
                packed.owner_RxL[row, columns] = u
                packed.first_U[u] = row * width + start
                start += lengths[u]
        return packed


class Items(NamedTuple):
    """U distinct items, each to be encoded once.

    Attributes:
      items_U: item indices; -1 is padding.
      log_weight_U: logarithm of each candidate's weight in the partition sum of the
        softmax; -inf excludes it. One entry for each item of `items_U` or, with stale
        negatives, of the catalogue.
      packed: the items' texts; None if no encoder has to run on them.
    """

    items_U: np.ndarray
    log_weight_U: np.ndarray
    packed: Packed | None


def _choose_rows(lengths: np.ndarray, width: int) -> list[list[int]]:
    """Chooses the texts of each row of `width` tokens, by best fit decreasing."""
    # This needs at most 11/9 of the optimal number of rows, plus a constant (Johnson et
    # al., 1974). Rows are grouped by their free tokens, so that a text finds the
    # fullest row that fits without a search through all rows.
    open_rows: list[list[int]] = [[] for _ in range(width + 1)]
    rows: list[list[int]] = []
    for u in np.argsort(-lengths, kind="stable"):
        length = int(lengths[u])
        if length == 0:  # padding; all that follow are padding too
            break
        fitting = (free for free in range(length, width + 1) if open_rows[free])
        free = next(fitting, None)
        if free is None:
            rows.append([])
            row, free = len(rows) - 1, width
        else:
            row = open_rows[free].pop()
        rows[row].append(int(u))
        open_rows[free - length].append(row)
    return rows


def split_rows(
    packed: Packed, num_rows: int, multiple: int = 1
) -> list[tuple[np.ndarray, Packed]]:
    """Splits packed texts into parts of one shape, for one compilation.

    Args:
      packed: any number of rows.
      num_rows: rows of a part; the last part is filled up with empty rows.
      multiple: the number of texts of a part becomes a multiple of it.

    Returns:
      For each part, which of the U texts it holds (-1 is padding), and its rows.
    """
    total, width = packed.index_RxL.shape
    num_texts = len(packed.first_U)
    packed = packed.fill_up(round_up(total, num_rows))
    row_U = packed.first_U // width
    ends = np.arange(num_rows, len(packed.index_RxL) + 1, num_rows)
    # Texts by row, cut where the rows of a part end.
    order = np.argsort(row_U, kind="stable")
    members = np.split(order, np.searchsorted(row_U[order], ends[:-1]))
    size = round_up(max(map(len, members)), multiple)
    # Index of each text within its part; `size`, which is padding, for all others.
    local = np.full(num_texts + 1, size, np.int32)
    parts = []
    for end, texts in zip(ends, members, strict=True):
        start = end - num_rows
        local[texts] = np.arange(len(texts))
        first_U = pad_to(packed.first_U[texts] - start * width, size, 0)
        *rows, owner_RxL = (values_RxL[start:end] for values_RxL in packed[:4])
        part = Packed._make([*rows, local[owner_RxL], first_U])
        parts.append((pad_to(texts, size), part))
        local[texts] = size
    return parts


def whole_catalogue(num_items: int, packing: Packing | None, multiple: int) -> Items:
    """All items in order, with U rounded up to a multiple of `multiple`."""
    items_U = pad_to(np.arange(num_items), round_up(num_items, multiple))
    packed = None
    if packing:
        packed = packing.pack(items_U)
        packed = packed.fill_up(round_up(len(packed.index_RxL), packing.multiple))
    return _unweighted(items_U, packed)


def catalogue_pieces(
    num_items: int, packing: Packing, multiple: int, num_rows: int
) -> list[Items]:
    """All items, in pieces of one shape with about `num_rows` rows each.

    U and the number of rows are rounded up to multiples of `multiple` and
    `packing.multiple`.
    """
    # Packed before they are split, so that only the last piece has empty rows.
    packed = packing.pack(np.arange(num_items))
    num_rows = round_up(min(num_rows, len(packed.index_RxL)), packing.multiple)
    return [_unweighted(*part) for part in split_rows(packed, num_rows, multiple)]


def _unweighted(items_U: np.ndarray, packed: Packed | None) -> Items:
    """Gives weight 1 to all items, and weight 0 to padding."""
    weight_U = np.where(items_U >= 0, 0, -np.inf).astype(np.float32)
    return Items(items_U, weight_U, packed)
