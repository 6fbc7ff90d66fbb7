"""Packs several short texts into one row."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recjax.data.padding import round_up
from recjax.data.text.tokenize import Tokens


class Packed(NamedTuple):
    """U texts in R rows of L tokens.

    Attributes:
      index_RxL: place of each token in `Tokens.ids`; 0 where nothing stands.
      position_RxL: place of the token in its text.
      segment_RxL: 1, 2, ... for the texts of a row; 0 where nothing stands.
      owner_RxL: which of the U texts a token belongs to; U where nothing stands.
      first_U: flat place (row * L + column) of each text's first token.
    """

    index_RxL: np.ndarray
    position_RxL: np.ndarray
    segment_RxL: np.ndarray
    owner_RxL: np.ndarray
    first_U: np.ndarray

    def fill_up(self, num_rows: int) -> "Packed":
        """The same texts with empty rows behind them, up to `num_rows`."""

        def fill(x_RxL: np.ndarray, value: int) -> np.ndarray:
            rows = ((0, num_rows - len(x_RxL)), (0, 0))
            return np.pad(x_RxL, rows, constant_values=value)

        return Packed(
            fill(self.index_RxL, 0),
            fill(self.position_RxL, 0),
            fill(self.segment_RxL, 0),
            fill(self.owner_RxL, len(self.first_U)),
            self.first_U,
        )


def split_rows(
    packed: Packed, rows: int, multiple: int = 1
) -> list[tuple[np.ndarray, Packed]]:
    """Parts of so many rows each, and which of the U texts each part holds.

    The parts have one shape: missing rows are empty, missing texts are -1. A part's
    places for texts are a multiple of `multiple`.
    """
    num_rows, width = packed.index_RxL.shape
    packed = packed.fill_up(-(-num_rows // rows) * rows)
    places = packed.first_U // width
    ends = np.arange(rows, len(packed.index_RxL) + 1, rows)
    order = np.argsort(places, kind="stable")
    members = np.split(order, np.searchsorted(places[order], ends[:-1]))
    most = -(-max(map(len, members)) // multiple) * multiple
    parts, local = [], np.full(len(packed.first_U) + 1, most, np.int32)
    for end, texts in zip(ends, members, strict=True):
        arrays = [x[end - rows : end] for x in packed[:-1]]
        local[texts] = np.arange(len(texts))
        texts_U, first_U = np.full(most, -1, np.int32), np.zeros(most, np.int32)
        texts_U[: len(texts)] = texts
        first_U[: len(texts)] = packed.first_U[texts] - (end - rows) * width
        part = Packed(*arrays, first_U)  # type: ignore[call-arg]
        parts.append((texts_U, part._replace(owner_RxL=local[part.owner_RxL])))
        local[texts] = most
    return parts


def pack(tokens: Tokens, items_U: np.ndarray, *, width: int) -> Packed:
    """Packs the texts of some catalogue rows, best fit in order of falling length.

    Args:
      tokens: the whole catalogue's.
      items_U: catalogue rows; -1 is a place without a text.
      width: L, at least the longest text.
    """
    lengths = np.where(items_U >= 0, tokens.lengths[items_U], 0)
    open_rows: list[list[int]] = [[] for _ in range(width + 1)]  # by free tokens
    used: list[list[int]] = []
    for u in np.argsort(-lengths, kind="stable"):
        n = int(lengths[u])
        if n == 0:
            break
        free = next((f for f in range(n, width + 1) if open_rows[f]), None)
        if free is None:
            used.append([])
            row, free = len(used) - 1, width
        else:
            row = open_rows[free].pop()
        used[row].append(int(u))
        open_rows[free - n].append(row)
    return _lay_out(tokens, items_U, lengths, used, width)


def _lay_out(
    tokens: Tokens,
    items_U: np.ndarray,
    lengths: np.ndarray,
    used: list[list[int]],
    width: int,
) -> Packed:
    shape = (max(len(used), 1), width)
    packed = Packed(
        index_RxL=np.zeros(shape, np.int32),
        position_RxL=np.zeros(shape, np.int32),
        segment_RxL=np.zeros(shape, np.int32),
        owner_RxL=np.full(shape, len(items_U), np.int32),
        first_U=np.zeros(len(items_U), np.int32),
    )
    for row, members in enumerate(used):
        start = 0
        for segment, u in enumerate(members, 1):
            part = slice(start, start + lengths[u])
            first = tokens.offsets[items_U[u]]
            packed.index_RxL[row, part] = np.arange(first, first + lengths[u])
            packed.position_RxL[row, part] = np.arange(lengths[u])
            packed.segment_RxL[row, part] = segment
            packed.owner_RxL[row, part] = u
            packed.first_U[u] = row * width + start
            start += lengths[u]
    return packed


class Items(NamedTuple):
    """The U distinct items of a batch, each to be encoded once.

    Attributes:
      items_U: catalogue rows; -1 is padding.
      log_weight_U: what a candidate's term in the softmax's partition sum is
        multiplied with, as a logarithm; -inf keeps it out. The candidates are these
        items or, where they are stale, the catalogue.
      packed: the items' texts, where the encoder has to run on them.
    """

    items_U: np.ndarray
    log_weight_U: np.ndarray
    packed: Packed | None


@dataclass(frozen=True)
class Packing:
    """How texts are packed: tokens a row, and what R must be a multiple of."""

    tokens: Tokens
    width: int
    multiple: int = 1


def whole_catalogue(num_items: int, packing: Packing | None, multiple: int) -> Items:
    """All items in order, filled up to a multiple."""
    items_U = np.full(round_up(num_items, multiple), -1, np.int32)
    items_U[:num_items] = np.arange(num_items)
    packed = None
    if packing:
        packed = pack(packing.tokens, items_U, width=packing.width)
        packed = packed.fill_up(round_up(len(packed.index_RxL), packing.multiple))
    return _unweighted(items_U, packed)


def catalogue_pieces(
    num_items: int, packing: Packing, multiple: int, rows: int
) -> list[Items]:
    """All items, in pieces of one shape with so many rows of packed texts.

    Texts are packed before they are cut, so that rows are empty in the last piece
    alone.
    """
    rows = round_up(rows, packing.multiple)
    packed = pack(packing.tokens, np.arange(num_items), width=packing.width)
    rows = min(rows, round_up(len(packed.index_RxL), packing.multiple))
    return [_unweighted(*part) for part in split_rows(packed, rows, multiple)]


def _unweighted(items_U: np.ndarray, packed: Packed | None) -> Items:
    weight_U = np.where(items_U >= 0, 0, -np.inf).astype(np.float32)
    return Items(items_U, weight_U, packed)
