"""A trained recommender: lists, scores and vectors by the ids of users and items."""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import polars as pl

from recjax.common.errors import UserError, first_line
from recjax.common.files import user_path
from recjax.common.intervals import Interval
from recjax.common.param_paths import unflatten_params
from recjax.common.vectors import unit_vectors
from recjax.inference import golden
from recjax.inference.card import model_card
from recjax.inference.evaluate import count_candidates, cut_offs, metrics
from recjax.inference.files import (
    MODEL,
    check_target,
    load_parts,
    locate_model,
    save_parts,
)
from recjax.inference.frames import is_frame, like, to_polars
from recjax.inference.fusion import Fusion
from recjax.inference.ids import HistoryQueries, IdIndex
from recjax.inference.inputs import at_least_one, text_list
from recjax.inference.item_encoder import ItemEncoder
from recjax.inference.lists import (
    CHUNK,
    FROM_MODEL,
    FROM_POPULARITY,
    chunks,
    list_frame,
    most_popular,
    nearest_items,
)
from recjax.inference.new_items import read_items, render
from recjax.inference.parts import (
    ADDED,
    EVENTS,
    ItemVectors,
    ModelParts,
    make_item_table,
)
from recjax.inference.ranker import Ranker
from recjax.models.encoders.huggingface import load_config
from recjax.models.recommender import Recommender, make_model
from recjax.runtime.mesh import check_devices

P = ParamSpec("P")
R = TypeVar("R")


def consistent(
    method: Callable[Concatenate["Model", P], R],
) -> Callable[Concatenate["Model", P], R]:
    """Makes a method read the model of one moment, though other threads add items."""

    @functools.wraps(method)
    def read(self: "Model", *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self._snapshot(), *args, **kwargs)

    return read


class Model:
    """A trained recommender.

    Ids are those of the files that it was trained on, as strings or whole numbers.
    Tables are polars frames, and a pandas frame gives a pandas frame back. Several
    threads may add items and read the model: each call reads the items that there were
    at its start.

    Attributes:
      parts: what the model consists of.
      ids: finds items, users and histories by their ids.
    """

    def __init__(self, parts: ModelParts):
        self.parts = parts
        self.ids = IdIndex(parts)
        self._adding = threading.Lock()  # threads that add items do so in turn

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> "Model":
        """Loads a model from a directory, or from the Hugging Face Hub.

        Args:
          name: a run directory, a model directory, or `owner/name` on the Hub.
          revision: branch, tag or commit on the Hub.

        Raises:
          UserError: there is no such model, a file is damaged, or its golden lists come
            out differently.
        """
        check_devices()
        place = locate_model(f"{name}@{revision}" if revision else str(name))
        # A promotion during the loading changes the link, and not the version.
        folder = Path(os.path.realpath(place))
        parts, lists = load_parts(folder)
        model = cls(parts)
        try:
            golden.check(lists, model, folder)
        except (UserError, MemoryError):
            raise
        except Exception as e:  # shapes, names and types of any kind
            raise UserError(
                f"{folder}: its files do not fit each other ({first_line(e)[:200]})"
            ) from None
        return model

    @consistent
    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model to a directory, with all items that were added.

        Raises:
          UserError: the directory holds something else.
        """
        if not isinstance(folder, str | os.PathLike):
            raise UserError(f"folder: {folder!r} is not a path")
        path = user_path(os.fspath(folder), "folder")
        check_target(path)  # before the golden lists are made
        card = model_card(self.parts)
        save_parts(self.parts, path, golden.make(self), card)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the model to the Hugging Face Hub; returns the address of the commit.

        Args:
          repo_id: `owner/name`; it is created, private, if it does not exist.
          options: passed on to `huggingface_hub.HfApi.upload_folder`.

        Raises:
          UserError: the upload failed.
        """
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=options.pop("token", None))
        private = options.pop("private", True)
        with tempfile.TemporaryDirectory() as tmp:
            folder = Path(tmp) / MODEL
            self.save_pretrained(folder)
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                found = api.upload_folder(
                    repo_id=repo_id, folder_path=folder, **options
                )
            except Exception as e:  # the client raises many types
                raise UserError(
                    f"{repo_id}: cannot be uploaded ({first_line(e)}); check the "
                    "network, the name and the token"
                ) from None
        return str(found)

    @property
    def items(self) -> pl.DataFrame:
        """The catalogue: id, title, text, training events and state of each item."""
        return self.parts.items

    @property
    def users(self) -> list[str]:
        """The users whose histories the model has."""
        return self.ids.users

    @consistent
    def recommend(
        self,
        users: Any = None,
        histories: Any = None,
        k: int = 10,
        exclude_seen: bool = True,
        among: Iterable[Any] | None = None,
    ) -> Any:
        """Recommends items to users of the data, or for any histories.

        Args:
          users: ids of users, or "all". Their histories are those of the data set.
          histories: lists of item ids, oldest first; or a table of interactions with
            the columns of users, items and, if the run has them, times. Unknown items
            are left out. A user without any known item gets the most popular items.
          k: length of the lists.
          exclude_seen: whether items of the history are left out.
          among: ids of the items to choose from; None is the whole catalogue.

        Returns:
          A table with the columns `user` (or `query`, the position of the history),
          `rank` (from 1), `item`, `title`, `score` and `source` ("model" or
          "popularity"). Lists are shorter than k where there are fewer candidates.

        Raises:
          UserError: unknown users or items, or k below 1.
        """
        k = at_least_one(k, "k")
        queries = self.ids.queries(users, histories)
        allowed_N = None
        if among is not None:
            allowed_N = np.zeros(self.parts.num_items, bool)
            allowed_N[self.ids.items(among, "among")] = True
        frames = list(self._lists(queries, k, exclude_seen, allowed_N))
        if not frames:
            frames = [list_frame(self.items, [], [], [], FROM_MODEL)]
        found = pl.concat(frames)
        label = queries.label
        dtype = pl.String if label == "user" else pl.Int64
        names = [queries.names[i] for i in found["query"]]
        named = found.with_columns(pl.Series(label, names, dtype=dtype))
        columns = [label, "rank", "item", "title", "score", "source"]
        return like(named.select(columns), histories)

    @consistent
    def score(
        self,
        items: Iterable[Any] | None = None,
        users: Any = None,
        histories: Any = None,
        texts: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Scores items, or new texts, for users or histories: scores_BxU.

        Scores of one history can be compared with each other. An empty history has
        scores too: those of a user about whom nothing is known.

        Args:
          items: ids of items.
          users, histories: as in `recommend`.
          texts: texts of items that are not in the catalogue, instead of `items`.

        Raises:
          UserError: unknown ids, or texts for a model that reads ids alone.
        """
        queries = self.ids.queries(users, histories)
        if (items is None) == (texts is None):
            raise UserError("score: give either items or texts")
        if texts is not None:
            texts = text_list(texts, "texts")
            model = self._with_items(
                [f"text {i}" for i in range(len(texts))], texts, texts, check=False
            )
            chosen = np.arange(self.parts.num_items, model.parts.num_items)
        else:
            model, chosen = self, self.ids.items(items)
        both = zip(chunks(queries.histories), chunks(queries.times), strict=True)
        parts = [model._scores(*part)[:, chosen] for part in both]
        return np.concatenate(parts) if parts else np.zeros((0, len(chosen)))

    @consistent
    def similar(
        self,
        items: Iterable[Any] | None = None,
        k: int = 10,
        texts: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """Returns the items with the most similar vectors, by cosine.

        Args:
          items: ids of items, which are not among their own neighbours.
          k: number of neighbours.
          texts: texts instead of items.

        Returns:
          A table with the columns `item` (or `text`), `rank`, `neighbour`, `title` and
          `cosine`.
        """
        if (items is None) == (texts is None):
            raise UserError("similar: give either items or texts")
        k = at_least_one(k, "k")
        unit_NxD = self._unit_NxD
        if texts is not None:
            label, names = "text", text_list(texts, "texts")
            own_U = np.full(len(names), -1)
            vectors_UxD = unit_vectors(self.encode_items(names))
        else:
            label, own_U = "item", self.ids.items(items)
            names = [self.ids.item_ids[row] for row in own_U]
            vectors_UxD = unit_NxD[own_U]
        queries = vectors_UxD, own_U
        return nearest_items(self.items, unit_NxD, k, label, names, queries)

    def encode_items(self, items: Any) -> np.ndarray:
        """Returns the vectors of new items, by which they are ranked: vectors_UxD.

        Args:
          items: texts, or a table with the columns of the run's `text.template`.

        Raises:
          UserError: the model reads ids alone, or a column is missing.
        """
        if is_frame(items):
            frame = to_polars(items, "items")
            (texts,) = render(frame, self.parts.config, "template")
        else:
            texts = text_list(items, "items")
        encoder = self.item_encoder
        if not texts:
            return self.parts.vectors.candidates_NxD[:0]
        return encoder.encode(texts).candidates_NxD

    def add_items(self, items: Any) -> None:
        """Adds items to the catalogue; they can be recommended at once.

        They are encoded from their texts; what the model learned about ids alone does
        not apply to them, and their bias is the mean bias of the catalogue.

        Args:
          items: a table with the column of item ids and those of `text.template` and
            `text.title`; or a dictionary of ids and texts.

        Raises:
          UserError: the model reads ids alone; a column, an id or a text is missing;
            or an id is in the catalogue already. No item is added then.
        """
        self.add_titled_items(*read_items(items, self.parts.config))

    def add_titled_items(
        self, ids: Sequence[str], texts: Sequence[str], titles: Sequence[str]
    ) -> None:
        """Adds items whose texts and titles are known, see `add_items`."""
        with self._adding:
            added = self._with_items(ids, texts, titles)
            self.__dict__ = {**added.__dict__, "_adding": self._adding}

    def _snapshot(self) -> "Model":
        """Returns the model of this moment; items that are added later are not in it.

        Both share their attributes until then, so that what one of them has computed
        from the parts is there for the other.
        """
        model = object.__new__(type(self))
        model.__dict__ = self.__dict__
        return model

    def __reduce__(self) -> tuple[type["Model"], tuple[ModelParts]]:
        """Pickles and copies the parts alone; all else is made from them."""
        return type(self), (self.parts,)

    @consistent
    def evaluate(
        self,
        histories: Any,
        targets: Iterable[Any],
        ks: Sequence[int] = (5, 10),
        mask_seen: bool | None = None,
    ) -> dict[str, Interval]:
        """Ranks the target of every history among all items.

        Args:
          histories: lists of item ids, oldest first.
          targets: the id of the item that follows each history.
          ks: cut-offs of the metrics.
          mask_seen: whether items of the history are no candidates (a target always
            is); None does as the run did.

        Returns:
          HR, NDCG and MRR at the cut-offs and AUC, with 95% bootstrap intervals over
          the histories. Ties count against the model.
        """
        sizes = cut_offs(ks)
        return metrics(self._counts(histories, targets, mask_seen), sizes)

    @consistent
    def ranks(
        self,
        histories: Any,
        targets: Iterable[Any],
        mask_seen: bool | None = None,
    ) -> np.ndarray:
        """Returns the rank of every target, from 1; the arguments as in `evaluate`."""
        counts_Rx3 = self._counts(histories, targets, mask_seen)
        return counts_Rx3[:, 0] + counts_Rx3[:, 1] + 1

    def _counts(
        self, histories: Any, targets: Iterable[Any], mask_seen: bool | None
    ) -> np.ndarray:
        """Counts the candidates above, equal to and below each target: counts_Rx3."""
        queries = self.ids.queries(None, histories)
        rows = queries.histories
        targets_R = self.ids.items(targets, "targets")
        if len(rows) != len(targets_R):
            raise UserError(
                f"targets: {len(targets_R)} targets for {len(rows)} histories"
            )
        if not rows:
            raise UserError("histories: there are none")
        mask = self.parts.config.eval.mask_seen if mask_seen is None else mask_seen
        return count_candidates(self._scores, rows, queries.times, targets_R, mask)

    def _scores(
        self, histories: Sequence[np.ndarray], times: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Scores all items for B histories of item indices: scores_BxN."""
        return self._ranker.scores(histories, self.fused_scores(histories), times)

    def _lists(
        self,
        queries: HistoryQueries,
        k: int,
        exclude_seen: bool,
        allowed_N: np.ndarray | None,
    ) -> Iterator[pl.DataFrame]:
        both = zip(chunks(queries.histories), chunks(queries.times), strict=True)
        for start, (part, times) in enumerate(both):
            offset = start * CHUNK
            known = [b for b, history in enumerate(part) if len(history)]
            if known:
                histories = [part[b] for b in known]
                seen = [np.unique(x) if exclude_seen else x[:0] for x in histories]
                fused = self.fused_scores(histories)
                own = [times[b] for b in known]
                found = self._ranker.top_k(histories, seen, k, allowed_N, fused, own)
                lists = dict(zip(known, zip(*found, strict=True), strict=True))
            else:
                lists = {}
            for b in range(len(part)):
                items_K, scores_K = lists.get(b) or most_popular(
                    self.items, k, allowed_N
                )
                is_item_K = items_K >= 0
                yield list_frame(
                    self.items,
                    [offset + b] * int(is_item_K.sum()),
                    items_K[is_item_K],
                    scores_K[is_item_K],
                    FROM_MODEL if b in lists else FROM_POPULARITY,
                )

    @functools.cached_property
    def fusion(self) -> Fusion | None:
        """The fused baselines; None without score fusion."""
        parts = self.parts
        if not parts.fusion:
            return None
        return Fusion(
            parts.fusion,
            parts.config.head.fusion_floor,
            parts.num_trained,
            parts.config.data.history_length,
        )

    def fused_scores(self, histories: Sequence[np.ndarray]) -> np.ndarray | None:
        """Returns the fused baselines' scores_BxMxN; None without score fusion.

        Args:
          histories: item indices of B histories, oldest first.
        """
        if self.fusion is None:
            return None
        return self.fusion.score(histories, len(histories), self.parts.num_items)

    def _with_items(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        titles: Sequence[str],
        check: bool = True,
    ) -> "Model":
        """Returns a model with more items."""
        if check:
            repeated = [name for name in ids if name in self.ids.item_index]
            if repeated:
                raise UserError(f"items: {repeated[0]!r} is in the catalogue already")
            if len(set(ids)) < len(ids):
                raise UserError("items: an id appears twice")
        if not texts:
            return Model(self.parts)
        added = self.item_encoder.encode(texts)
        frame = make_item_table(ids, titles, texts, [0] * len(ids), [ADDED] * len(ids))
        old = self.parts.vectors
        vectors = ItemVectors(
            np.concatenate([old.history_NxD, added.history_NxD]),
            np.concatenate([old.candidates_NxD, added.candidates_NxD]),
            np.concatenate([old.bias_N, added.bias_N]),
        )
        items = pl.concat([self.parts.items, frame])
        model = Model(replace(self.parts, items=items, vectors=vectors))
        model.__dict__["item_encoder"] = self.item_encoder
        return model

    @functools.cached_property
    def _unit_NxD(self) -> np.ndarray:
        return unit_vectors(self.parts.vectors.candidates_NxD)

    @functools.cached_property
    def _encoder_config(self) -> Any:
        return None if self.parts.encoder is None else load_config(self.parts.encoder)

    @functools.cached_property
    def recommender(self) -> Recommender:
        """The module whose parameters the model has."""
        return make_model(
            self.parts.config, self.parts.num_trained, self._encoder_config
        )

    @property
    def encoder_layers(self) -> int:
        """Number of layers of the text encoder; 0 without one."""
        config = self._encoder_config
        return 0 if config is None else config.num_blocks - 2

    @functools.cached_property
    def _ranker(self) -> Ranker:
        params = unflatten_params(self.parts.params)
        return Ranker(self.recommender, params, self.parts.vectors)

    @functools.cached_property
    def item_encoder(self) -> ItemEncoder:
        """Encodes new items from their texts.

        Raises:
          UserError: the model reads ids alone.
        """
        parts = self.parts
        if parts.encoder is None:
            raise UserError(
                "this model reads ids alone (item_tower.sources has no text) and "
                "cannot encode items that it was not trained with"
            )
        return ItemEncoder(
            parts.config,
            parts.params,
            self._encoder_config,
            parts.encoder,
            parts.whitening,
            parts.items[EVENTS].to_numpy(),
        )
