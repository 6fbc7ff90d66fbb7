"""Ranks the catalogue of a model for histories, with few compiled shapes."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batching.times import pad_times, unknown_times
from recjax.data.padding import pad_left, pad_to
from recjax.inference.parts import ItemVectors
from recjax.models.recommender import Recommender
from recjax.retrieval.index import Index, make_index, score_items
from recjax.retrieval.top_k import top_k

BATCH_SIZES = (1, 8, 64)  # a batch of 2 to 4 queries takes as long as one of 8
MIN_EXCLUDED = 16  # excluded items of a query, rounded up to powers of two
MIN_K = 16


class Lists(NamedTuple):
    """The best K items of B queries, best first.

    Attributes:
      items_BxK: item indices; -1 where there are fewer than K candidates.
      scores_BxK: their scores; -inf at -1.
    """

    items_BxK: np.ndarray
    scores_BxK: np.ndarray


class Ranker:
    """Computes lists and scores over one set of item vectors.

    Args:
      model: the model.
      params: its parameters, nested.
      vectors: vectors and biases of the N items.
    """

    def __init__(self, model: Recommender, params: Any, vectors: ItemVectors):
        self.model = model
        self.num_items = len(vectors.bias_N)
        # Only the user tower, the head and the fusion weights are read.
        self._params = jax.device_put(
            {name: x for name, x in params.items() if name != "items"}
        )
        self._history_NxD = jnp.asarray(vectors.history_NxD)
        self._index = make_index(
            jnp.asarray(vectors.candidates_NxD), jnp.asarray(vectors.bias_N)
        )

    def top_k(
        self,
        histories: Sequence[np.ndarray],
        excluded: Sequence[np.ndarray],
        k: int,
        allowed_N: np.ndarray | None = None,
        fused_BxMxN: np.ndarray | None = None,
        times: Sequence[np.ndarray] | None = None,
    ) -> Lists:
        """Returns the best k items for B histories.

        Args:
          histories: item indices of each history, oldest first; not empty.
          excluded: item indices that each list must not contain.
          k: length of the lists.
          allowed_N: whether an item may be in a list; None allows all.
          fused_BxMxN: scores of the fused baselines; None without score fusion.
          times: of the events of each history, see `pad_times`; None if unknown.
        """
        k = min(k, self.num_items)
        size = min(_power_of_two(k, MIN_K), len(self._index.bias_M))
        parts = []
        for start, batch in self._batches(histories, times):
            stop = start + BATCH_SIZES[-1]
            longest = max(map(len, excluded[start:stop]), default=0)
            width = _power_of_two(longest, MIN_EXCLUDED)
            excluded_BxS = np.full((len(batch[0]), width), -1, np.int32)
            for b, items in enumerate(excluded[start:stop]):
                excluded_BxS[b, : len(items)] = items
            fused = None if fused_BxMxN is None else fused_BxMxN[start:stop]
            allowed_M = self._allowed(allowed_N)
            found = _rank_batch(
                self.model,
                size,
                *self._arrays,
                *batch,
                excluded_BxS,
                allowed_M,
                _pad(fused, batch),
            )
            number = len(histories[start:stop])
            parts.append([np.asarray(x)[:number, :k] for x in found])
        items_BxK, scores_BxK = map(np.concatenate, zip(*parts, strict=True))
        return Lists(items_BxK, scores_BxK)

    def scores(
        self,
        histories: Sequence[np.ndarray],
        fused_BxMxN: np.ndarray | None = None,
        times: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Returns scores_BxN of all items for B histories."""
        parts = []
        for start, batch in self._batches(histories, times):
            stop = start + BATCH_SIZES[-1]
            fused = None if fused_BxMxN is None else fused_BxMxN[start:stop]
            found_BxM = _score_batch(
                self.model, *self._arrays, *batch, _pad(fused, batch)
            )
            number = len(histories[start:stop])
            parts.append(np.asarray(found_BxM)[:number, : self.num_items])
        return np.concatenate(parts)

    @property
    def _arrays(self) -> tuple[Any, ...]:
        return self._params, self._history_NxD, self._index

    def _batches(
        self, histories: Sequence[np.ndarray], times: Sequence[np.ndarray] | None
    ) -> Any:
        """Yields the start of each batch, its padded histories, and their times."""
        length = self.model.history_length
        for start in range(0, len(histories), BATCH_SIZES[-1]):
            part = slice(start, start + BATCH_SIZES[-1])
            rows = [x[-length:] for x in histories[part]]
            size = next(size for size in BATCH_SIZES if size >= len(rows))
            times_BxH = None
            if self.model.reads_times:
                own = unknown_times(rows) if times is None else times[part]
                times_BxH = pad_times([x[-length:] for x in own], (size, length))
            yield start, (*pad_left(rows, (size, length)), times_BxH)

    @functools.lru_cache(maxsize=1)  # noqa: B019 (one entry)
    def _everything(self) -> jax.Array:
        return jnp.arange(len(self._index.bias_M)) < self.num_items

    def _allowed(self, allowed_N: np.ndarray | None) -> jax.Array:
        if allowed_N is None:
            return self._everything()
        padded_M = pad_to(allowed_N, len(self._index.bias_M), False, bool)
        return jnp.asarray(padded_M)


# Compiled once for all rankers of the same model and number of items.
@functools.partial(jax.jit, static_argnums=0)
def _score_batch(
    model: Recommender,
    params: Any,
    history_NxD: jax.Array,
    index: Index,
    history_BxH: jax.Array,
    mask_BxH: jax.Array,
    times_BxH: jax.Array | None,
    fused_BxMxN: jax.Array | None,
) -> jax.Array:
    apply = functools.partial(model.apply, {"params": params})
    # As in training: `train.dtype` alone decides the precision.
    with jax.default_matmul_precision("float32"):
        queries_BxD = apply(
            history_NxD,
            history_BxH,
            mask_BxH,
            times_BxH,
            method=Recommender.user_queries,
        )
        scores_BxM = score_items(queries_BxD, index)
        if fused_BxMxN is not None:
            fused_BxN = apply(fused_BxMxN, method=Recommender.fuse_scores)
            missing = scores_BxM.shape[1] - fused_BxN.shape[1]
            scores_BxM += jnp.pad(fused_BxN, ((0, 0), (0, missing)))
    return apply(scores_BxM, history_BxH, mask_BxH, method=Recommender.bias_seen)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _rank_batch(
    model: Recommender,
    k: int,
    params: Any,
    history_NxD: jax.Array,
    index: Index,
    history_BxH: jax.Array,
    mask_BxH: jax.Array,
    times_BxH: jax.Array | None,
    excluded_BxS: jax.Array,
    allowed_M: jax.Array,
    fused_BxMxN: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    scores_BxM = _score_batch(
        model,
        params,
        history_NxD,
        index,
        history_BxH,
        mask_BxH,
        times_BxH,
        fused_BxMxN,
    )
    num_users, num_columns = scores_BxM.shape
    scores_BxM = jnp.where(allowed_M[None], scores_BxM, -jnp.inf)
    users_Bx1 = jnp.arange(num_users)[:, None]
    columns_BxS = jnp.where(excluded_BxS < 0, num_columns, excluded_BxS)
    scores_BxM = scores_BxM.at[users_Bx1, columns_BxS].set(-jnp.inf, mode="drop")
    best_BxK, items_BxK = top_k(scores_BxM, k)
    return jnp.where(best_BxK == -jnp.inf, -1, items_BxK), best_BxK


def _power_of_two(size: int, at_least: int) -> int:
    return max(at_least, 1 << max(size - 1, 0).bit_length())


def _pad(fused: np.ndarray | None, batch: tuple[Any, ...]) -> np.ndarray | None:
    """Fills the scores of a batch up to its number of rows."""
    if fused is None:
        return None
    missing = len(batch[0]) - len(fused)
    return np.pad(fused, ((0, missing), (0, 0), (0, 0)))
