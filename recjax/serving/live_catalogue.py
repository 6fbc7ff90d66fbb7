"""A catalogue that grows while it is ranked, in functions that are compiled before.

The arrays have spare columns for new items, so that an insertion changes no shape. One
thread uses a `LiveCatalogue`, see `engine`.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recjax.common.errors import UserError
from recjax.common.param_paths import unflatten_params
from recjax.common.vectors import unit_vectors
from recjax.data.padding import pad_left, pad_to, round_up
from recjax.inference.parts import ItemVectors
from recjax.models.recommender import Recommender
from recjax.retrieval.index import GROUP_SIZE
from recjax.retrieval.top_k import top_k

if TYPE_CHECKING:
    from recjax.inference.model import Model

BATCH_SIZES = (1, 8)  # a batch of 2 to 4 takes as long as one of 8
EXCLUDED_SIZES = (64, 512, 4096)  # excluded items of a query
K_SIZES = (16, 128)
MAX_K, MAX_EXCLUDED = K_SIZES[-1], EXCLUDED_SIZES[-1]
SCORED_SIZES = (32, 1024)  # items that are scored for one history
MAX_SCORED = 1000
INSERT_SIZES = (1, 32)  # items that are inserted at a time
SPARE_SHARE, MIN_SPARE = 0.05, 4096
MIN_SQUARE = 1e-24  # of the norms, so that an empty column gives 0
MAX_RECENT = 32  # items of a history that an explanation compares


class Arrays(NamedTuple):
    """Vectors and biases of M columns; those without an item have the bias -inf.

    Attributes:
      history_MxD: vectors of items in histories; None if they are the candidates.
    """

    candidates_DxM: jax.Array
    bias_M: jax.Array
    history_MxD: jax.Array | None


class Query(NamedTuple):
    """A request for a list; all items are columns.

    Attributes:
      history: oldest first, not empty.
      excluded: items that the list must not have; the first `MAX_EXCLUDED` count.
      k: length of the list, at most `MAX_K`.
    """

    history: np.ndarray
    excluded: np.ndarray
    k: int


class LiveCatalogue:
    """The items of a model on the device, with room for more.

    Args:
      model: the model.
      spare: columns for new items; None is 5% of the catalogue, at least 4096.
    """

    def __init__(self, model: "Model", spare: int | None = None):
        parts = model.parts
        self.model = model
        self.ids = parts.items["id"].to_list()
        self.titles = parts.items["title"].to_list()
        self.columns = {name: column for column, name in enumerate(self.ids)}
        number = len(self.ids)
        if spare is None:
            spare = max(round(SPARE_SHARE * number), MIN_SPARE)
        self.capacity = round_up(number + spare, GROUP_SIZE)
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
            for excluded in EXCLUDED_SIZES:
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
            self._arrays = _insert(self._arrays, outside, *_fields(vectors))
        if self.model.parts.encoder is not None:
            self.model.item_encoder.warm_up()
        self._arrays = _set_bias(self._arrays, self.capacity, 0.0)

    def rank(self, queries: Sequence[Query]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns columns and scores of the best items of at most 8 queries."""
        size = next(size for size in BATCH_SIZES if size >= len(queries))
        length = self._recommender.history_length
        histories = [query.history[-length:] for query in queries]
        excluded = [query.excluded[:MAX_EXCLUDED] for query in queries]
        width = _at_least(EXCLUDED_SIZES, max(map(len, excluded)))
        excluded_BxS = np.full((size, width), -1, np.int32)
        for b, columns in enumerate(excluded):
            excluded_BxS[b, : len(columns)] = columns
        k = min(_at_least(K_SIZES, max(q.k for q in queries)), self.capacity)
        columns_BxK, scores_BxK = _rank_batch(
            self._recommender,
            k,
            self._params,
            self._arrays,
            *pad_left(histories, (size, length)),
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

    def score(self, history: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Returns scores_K of at most `MAX_SCORED` columns for a history, not empty.

        Hidden items have the score -inf.
        """
        size = _at_least(SCORED_SIZES, len(columns))
        histories = [history[-self._recommender.history_length :]]
        scores_K = _score_columns(
            self._recommender,
            self._params,
            self._arrays,
            *pad_left(histories, (1, self._recommender.history_length)),
            pad_to(columns, size),
            self._fused(histories, 1),
        )
        return np.asarray(scores_K)[: len(columns)]

    def neighbours(self, column: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns columns and cosines of the items nearest to one."""
        size = min(_at_least(K_SIZES, k + 1), self.capacity)
        columns_K, cosines_K = map(np.asarray, _nearest(size, self._arrays, column))
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
            _cosines(self._arrays, columns_K, pad_to(np.array(recent), MAX_RECENT))
        )[: len(columns), : len(recent)]
        order_KxR = np.argsort(-cosines_KxR, axis=1, kind="stable")[:, :2]
        return [
            [(recent[r], float(cosine_R[r])) for r in order_R]
            for order_R, cosine_R in zip(order_KxR, cosines_KxR, strict=True)
        ]

    def add(self, ids: Sequence[str], titles: Sequence[str], vectors: Any) -> None:
        """Adds items; one with a known id gets the new vectors and title.

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
        for column, title, bias in zip(columns, titles, vectors.bias_N, strict=True):
            self.titles[column] = title
            self._bias[column] = float(bias)
        for start in range(0, len(columns), INSERT_SIZES[-1]):
            part = slice(start, start + INSERT_SIZES[-1])
            self._arrays = _insert(
                self._arrays, *self._padded(columns[part], vectors, part)
            )
        for column in columns:  # an insertion shows a hidden item again
            self.hidden.discard(int(column))

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
        self._arrays = _set_bias(self._arrays, column, bias)

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

    def _fused(self, histories: Sequence[np.ndarray], size: int) -> np.ndarray | None:
        """Returns the fused baselines' scores for a batch; None without fusion."""
        if self.model.fusion is None:
            return None
        return self.model.fusion.score(histories, size, self.capacity)


def _fields(vectors: Any) -> tuple[Any, Any, Any]:
    return vectors.history_NxD, vectors.candidates_NxD, vectors.bias_N


@partial(jax.jit, donate_argnums=0)
def _insert(
    arrays: Arrays,
    columns_U: jax.Array,
    history_UxD: jax.Array,
    candidates_UxD: jax.Array,
    bias_U: jax.Array,
) -> Arrays:
    history_MxD = arrays.history_MxD
    if history_MxD is not None:
        history_MxD = history_MxD.at[columns_U].set(history_UxD, mode="drop")
    return Arrays(
        arrays.candidates_DxM.at[:, columns_U].set(candidates_UxD.T, mode="drop"),
        arrays.bias_M.at[columns_U].set(bias_U, mode="drop"),
        history_MxD,
    )


@partial(jax.jit, donate_argnums=0)
def _set_bias(arrays: Arrays, column: jax.Array, bias: jax.Array) -> Arrays:
    return arrays._replace(bias_M=arrays.bias_M.at[column].set(bias, mode="drop"))


@jax.jit
def _cosines(arrays: Arrays, columns_K: jax.Array, recent_R: jax.Array) -> jax.Array:
    """Returns cosines_KxR of items; those of padding mean nothing."""
    items_KxD = unit_vectors(arrays.candidates_DxM[:, columns_K].T)
    recent_RxD = unit_vectors(arrays.candidates_DxM[:, recent_R].T)
    return items_KxD @ recent_RxD.T


def _score_batch(
    recommender: Recommender,
    params: Any,
    arrays: Arrays,
    history_BxH: jax.Array,
    mask_BxH: jax.Array,
    fused_BxMxN: jax.Array | None,
) -> jax.Array:
    """Returns scores_BxM of all columns; -inf without an item."""
    apply = partial(recommender.apply, {"params": params})
    table, index_BxH = arrays.history_MxD, history_BxH
    if table is None:
        # The vectors of the histories are gathered from the columns.
        table = arrays.candidates_DxM[:, history_BxH.reshape(-1)].T
        index_BxH = jnp.arange(history_BxH.size).reshape(history_BxH.shape)
    with jax.default_matmul_precision("float32"):
        queries_BxD = apply(table, index_BxH, mask_BxH, method=Recommender.user_queries)
        scores_BxM = queries_BxD @ arrays.candidates_DxM + arrays.bias_M[None]
        if fused_BxMxN is not None:
            scores_BxM += apply(fused_BxMxN, method=Recommender.fuse_scores)
    return scores_BxM


# Compiled once for all catalogues of the same model and capacity.
@partial(jax.jit, static_argnums=(0, 1))
def _rank_batch(
    recommender: Recommender,
    k: int,
    params: Any,
    arrays: Arrays,
    history_BxH: jax.Array,
    mask_BxH: jax.Array,
    excluded_BxS: jax.Array,
    fused_BxMxN: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    scores_BxM = _score_batch(
        recommender, params, arrays, history_BxH, mask_BxH, fused_BxMxN
    )
    users_Bx1 = jnp.arange(len(scores_BxM))[:, None]
    columns_BxS = jnp.where(excluded_BxS < 0, scores_BxM.shape[1], excluded_BxS)
    scores_BxM = scores_BxM.at[users_Bx1, columns_BxS].set(-jnp.inf, mode="drop")
    best_BxK, columns_BxK = top_k(scores_BxM, k)
    return columns_BxK, best_BxK


@partial(jax.jit, static_argnums=0)
def _score_columns(
    recommender: Recommender,
    params: Any,
    arrays: Arrays,
    history_1xH: jax.Array,
    mask_1xH: jax.Array,
    columns_K: jax.Array,
    fused_1xMxN: jax.Array | None,
) -> jax.Array:
    columns_K = jnp.maximum(columns_K, 0)  # padding
    scores_1xM = _score_batch(
        recommender, params, arrays, history_1xH, mask_1xH, fused_1xMxN
    )
    return scores_1xM[0, columns_K]


@partial(jax.jit, static_argnums=0)
def _nearest(k: int, arrays: Arrays, column: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The norms are divided out afterwards, so that the table is read once.
    dots_M = arrays.candidates_DxM[:, column] @ arrays.candidates_DxM
    squares_M = jnp.square(arrays.candidates_DxM).sum(axis=0)
    cosine_M = dots_M * jax.lax.rsqrt(
        jnp.maximum(squares_M * squares_M[column], MIN_SQUARE)
    )
    cosine_M = jnp.where(arrays.bias_M > -jnp.inf, cosine_M, -jnp.inf)
    best_1xK, columns_1xK = top_k(cosine_M[None], k)
    return columns_1xK[0], best_1xK[0]


def count_compilations() -> int:
    """Returns the number of programs that have been compiled in this process."""
    functions: Any = (
        _rank_batch,
        _score_columns,
        _nearest,
        _insert,
        _set_bias,
        _cosines,
    )
    return sum(function._cache_size() for function in functions)


def _at_least(sizes: Sequence[int], size: int) -> int:
    """Returns the smallest of some sizes that is large enough; else the largest."""
    return next((each for each in sizes if each >= size), sizes[-1])
