"""A catalogue that grows while it is ranked, in functions that are compiled before.

The arrays have spare columns for new items, so that an insertion changes no shape. One
thread uses a `LiveCatalogue`, see `engine`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from recjax.common.errors import UserError
from recjax.common.param_paths import unflatten_params
from recjax.data.batching.times import pad_times, unknown_times
from recjax.data.padding import pad_left, pad_to, round_up
from recjax.inference.item_encoder import NEW
from recjax.inference.parts import ItemVectors
from recjax.retrieval.index import GROUP_SIZE
from recjax.serving.live_programs import (
    Arrays,
    cosines,
    insert,
    nearest,
    rank_batch,
    score_columns,
    set_bias,
)

if TYPE_CHECKING:
    from recjax.inference.model import Model

BATCH_SIZES = (1, 8)  # a batch of 2 to 4 takes as long as one of 8
EXCLUDED_SIZES = (64, 512, 4096, 32768)  # excluded items of a query
K_SIZES = (16, 128)
MAX_K = K_SIZES[-1]
SCORED_SIZES = (32, 1024)  # items that are scored for one history
MAX_SCORED = 1000
INSERT_SIZES = (1, 32)  # items that are inserted at a time
SPARE_SHARE, MIN_SPARE = 0.05, 4096
MAX_RECENT = 32  # items of a history that an explanation compares


class Query(NamedTuple):
    """A request for a list; all items are columns.

    Attributes:
      history: oldest first, not empty.
      excluded: distinct items that the list must not have; of more than
        `EXCLUDED_SIZES` has, the first ones count.
      k: length of the list, at most `MAX_K`.
      times: of the history's events, see `pad_times`; None if unknown.
    """

    history: np.ndarray
    excluded: np.ndarray
    k: int
    times: np.ndarray | None = None


class LiveCatalogue:
    """The items of a model on the device, with room for more.

    Args:
      model: the model.
      spare: columns for new items; None is 5% of the catalogue, at least 4096.
      cursor: sequence of the last event that the model's histories have.
    """

    def __init__(self, model: "Model", spare: int | None = None, cursor: int = 0):
        parts = model.parts
        self.model = model
        self.cursor = cursor
        self.ids = parts.items["id"].to_list()
        self.titles = parts.items["title"].to_list()
        self._texts: dict[int, str] = {}  # of items that were added or changed
        self._num_trained = parts.num_trained
        self.columns = {name: column for column, name in enumerate(self.ids)}
        number = len(self.ids)
        if spare is None:
            spare = max(round(SPARE_SHARE * number), MIN_SPARE)
        self.capacity = round_up(number + spare, GROUP_SIZE)
        # No list excludes more items than there are.
        enough = sum(size < self.capacity for size in EXCLUDED_SIZES) + 1
        self._excluded_sizes = EXCLUDED_SIZES[:enough]
        self.hidden: set[int] = set()
        self._recommender = model.recommender
        self._bias = parts.vectors.bias_N.astype(np.float32).tolist()
        params = {
            path: x for path, x in parts.params.items() if not path.startswith("items/")
        }
        self._params = jax.device_put(unflatten_params(params))
        self._arrays = self._place(parts.vectors)

    def __len__(self) -> int:
        return len(self.ids)

    def warm_up(self) -> None:
        """Compiles all programs that requests can need."""
        history = np.zeros(1, np.int64)
        for size in BATCH_SIZES:
            for excluded in self._excluded_sizes:
                for k in K_SIZES:
                    none = np.full(excluded, -1)
                    self.rank([Query(history, none, k)] * size)
        for size in SCORED_SIZES:
            self.score(history, np.zeros(size, np.int64))
        for k in K_SIZES:
            self.neighbours(0, k - 1)
        self.nearest_in_history(history, history)
        width = self._arrays.candidates_DxM.shape[0]
        for size in INSERT_SIZES:
            empty_UxD = np.zeros((size, width), np.float32)
            outside = np.full(size, self.capacity)
            vectors = ItemVectors(empty_UxD, empty_UxD, np.zeros(size, np.float32))
            self._arrays = insert(self._arrays, outside, *_fields(vectors))
        if self.model.parts.encoder is not None:
            self.model.item_encoder.warm_up()
        self._arrays = set_bias(self._arrays, self.capacity, 0.0)

    def rank(self, queries: Sequence[Query]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns columns and scores of the best items of at most 8 queries."""
        size = next(size for size in BATCH_SIZES if size >= len(queries))
        length = self._recommender.history_length
        histories = [query.history[-length:] for query in queries]
        sizes = self._excluded_sizes
        excluded = [query.excluded[: sizes[-1]] for query in queries]
        width = _at_least(sizes, max(map(len, excluded)))
        excluded_BxS = np.full((size, width), -1, np.int32)
        for b, columns in enumerate(excluded):
            excluded_BxS[b, : len(columns)] = columns
        k = min(_at_least(K_SIZES, max(q.k for q in queries)), self.capacity)
        columns_BxK, scores_BxK = rank_batch(
            self._recommender,
            k,
            self._params,
            self._arrays,
            *pad_left(histories, (size, length)),
            self._times([query.times for query in queries], histories, size),
            excluded_BxS,
            self._fused(histories, size),
        )
        columns_BxK, scores_BxK = np.asarray(columns_BxK), np.asarray(scores_BxK)
        found = []
        for b, query in enumerate(queries):
            is_item_K = scores_BxK[b] > -np.inf
            best = columns_BxK[b][is_item_K][: query.k]
            found.append((best, scores_BxK[b][is_item_K][: query.k]))
        return found

    def known(
        self, history: Sequence[str], times: Sequence[float] | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the columns and times of a history's items, without unknown ones."""
        found = [self.columns.get(name) for name in history]
        columns = np.array([c for c in found if c is not None], np.int64)
        if times is None:
            return columns, None
        is_known = [c is not None for c in found]
        return columns, np.array(times, float)[np.array(is_known, bool)]

    def score(
        self, history: np.ndarray, columns: np.ndarray, times: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns scores_K of at most `MAX_SCORED` columns for a history, not empty.

        Hidden items have the score -inf. `times` are as in `Query`.
        """
        size = _at_least(SCORED_SIZES, len(columns))
        histories = [history[-self._recommender.history_length :]]
        scores_K = score_columns(
            self._recommender,
            self._params,
            self._arrays,
            *pad_left(histories, (1, self._recommender.history_length)),
            self._times([times], histories, 1),
            pad_to(columns, size),
            self._fused(histories, 1),
        )
        return np.asarray(scores_K)[: len(columns)]

    def neighbours(self, column: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns columns and cosines of the items nearest to one."""
        size = min(_at_least(K_SIZES, k + 1), self.capacity)
        columns_K, cosines_K = map(np.asarray, nearest(size, self._arrays, column))
        others_K = (columns_K != column) & (cosines_K > -np.inf)
        return columns_K[others_K][:k], cosines_K[others_K][:k]

    def nearest_in_history(
        self, columns: np.ndarray, history: np.ndarray
    ) -> list[list[tuple[int, float]]]:
        """Returns, for every item, the two nearest items of a history with cosines.

        Only the newest `MAX_RECENT` distinct items of the history are compared.
        """
        recent = list(dict.fromkeys(history[::-1].tolist()))[:MAX_RECENT]
        columns_K = pad_to(columns, MAX_K)
        cosines_KxR = np.asarray(
            cosines(self._arrays, columns_K, pad_to(np.array(recent), MAX_RECENT))
        )[: len(columns), : len(recent)]
        order_KxR = np.argsort(-cosines_KxR, axis=1, kind="stable")[:, :2]
        return [
            [(recent[r], float(cosine_R[r])) for r in order_R]
            for order_R, cosine_R in zip(order_KxR, cosines_KxR, strict=True)
        ]

    def text(self, name: str) -> str | None:
        """Returns the text of an item; None if there is no such item."""
        column = self.columns.get(name)
        if column is None:
            return None
        changed = self._texts.get(column)
        return self.model.items["text"][column] if changed is None else changed

    def trained_rows(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the indices of items in the training; `NEW` for the others."""
        columns = np.array([self.columns.get(name, NEW) for name in ids], np.int64)
        return np.where(columns < self._num_trained, columns, NEW)

    def add(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        titles: Sequence[str],
        vectors: Any,
    ) -> None:
        """Adds items; one with a known id is changed, and stays hidden if it is.

        Raises:
          UserError: there is no spare column left.
        """
        new = [name for name in dict.fromkeys(ids) if name not in self.columns]
        self.check_room(len(new))
        for name in new:
            self.columns[name] = len(self.ids)
            self.ids.append(name)
            self.titles.append("")
            self._bias.append(0.0)
        columns = np.array([self.columns[name] for name in ids], np.int64)
        shown_N = vectors.bias_N.copy()
        for row, column in enumerate(columns.tolist()):
            self.titles[column], self._texts[column] = titles[row], texts[row]
            self._bias[column] = float(vectors.bias_N[row])
            if column in self.hidden:
                shown_N[row] = -np.inf
        vectors = replace(vectors, bias_N=shown_N)
        for start in range(0, len(columns), INSERT_SIZES[-1]):
            part = slice(start, start + INSERT_SIZES[-1])
            self._arrays = insert(
                self._arrays, *self._padded(columns[part], vectors, part)
            )

    def check_room(self, number: int) -> None:
        """Checks that there are spare columns for a number of new items.

        Raises:
          UserError: there are not.
        """
        if len(self.ids) + number > self.capacity:
            raise UserError(
                f"items: there is room for {self.capacity:,} items; start the service "
                "with a larger --spare"
            )

    def hide(self, column: int, hidden: bool = True) -> None:
        """Takes an item out of all lists, or puts it back; histories keep it."""
        if hidden:
            self.hidden.add(column)
        else:
            self.hidden.discard(column)
        bias = -np.inf if hidden else self._bias[column]
        self._arrays = set_bias(self._arrays, column, bias)

    def _padded(
        self, columns: np.ndarray, vectors: Any, part: slice
    ) -> tuple[Any, ...]:
        """Pads items to insert to one of few sizes; padding has no column."""
        missing = _at_least(INSERT_SIZES, len(columns)) - len(columns)
        rows = [np.asarray(x[part], np.float32) for x in _fields(vectors)]
        padded = [np.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1))) for x in rows]
        columns = np.pad(columns, (0, missing), constant_values=self.capacity)
        return columns, *padded

    def _place(self, vectors: ItemVectors) -> Arrays:
        number, width = vectors.candidates_NxD.shape
        candidates_DxM = np.zeros((width, self.capacity), np.float32)
        candidates_DxM[:, :number] = vectors.candidates_NxD.T
        bias_M = np.full(self.capacity, -np.inf, np.float32)
        bias_M[:number] = vectors.bias_N
        shared = np.array_equal(vectors.history_NxD, vectors.candidates_NxD)
        history_MxD = None
        # Marks of repeated items need the history's own columns.
        if not shared or self._recommender.repeat is not None:
            history_MxD = np.zeros((self.capacity, width), np.float32)
            history_MxD[:number] = vectors.history_NxD
        placed: Any = (candidates_DxM, bias_M, history_MxD)
        return Arrays(*jax.device_put(placed))

    def _times(
        self,
        times: Sequence[np.ndarray | None],
        histories: Sequence[np.ndarray],
        size: int,
    ) -> np.ndarray | None:
        """Returns times_BxH of a batch; None if the user tower does not read them."""
        if not self._recommender.reads_times:
            return None
        length = self._recommender.history_length
        unknown = unknown_times(histories)
        rows = [
            other if own is None else own[-length:]
            for own, other in zip(times, unknown, strict=True)
        ]
        return pad_times(rows, (size, length))

    def _fused(self, histories: Sequence[np.ndarray], size: int) -> np.ndarray | None:
        """Returns the fused baselines' scores for a batch; None without fusion."""
        if self.model.fusion is None:
            return None
        return self.model.fusion.score(histories, size, self.capacity)


def _fields(vectors: Any) -> tuple[Any, Any, Any]:
    return vectors.history_NxD, vectors.candidates_NxD, vectors.bias_N


def _at_least(sizes: Sequence[int], size: int) -> int:
    """Returns the smallest of some sizes that is large enough; else the largest."""
    return next((each for each in sizes if each >= size), sizes[-1])
