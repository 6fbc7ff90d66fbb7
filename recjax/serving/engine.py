"""The thread that computes: it coalesces requests and owns the arrays of the catalogue.

Requests name users and items by their ids; what these mean is decided in this thread,
so that a request that was made before a reload is answered by the new model.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from recjax.inference.lists import FROM_MODEL, FROM_POPULARITY, most_popular
from recjax.serving.limits import MAX_QUEUE, QueueFull
from recjax.serving.live_catalogue import BATCH_SIZES, LiveCatalogue, Query
from recjax.serving.new_items import (
    EncodedItems,
    NewItem,
    encode_items,
    insert_items,
)


class ListRequest(NamedTuple):
    """A request for a list.

    Attributes:
      history: ids of items, oldest first; unknown ones are left out. The list has none
        of them.
      excluded: further ids that the list must not have.
      k: length of the list.
      explain: whether each item comes with the nearest items of the history.
      times: of the history's events, in seconds, NaN where unknown; None if all are.
    """

    history: Sequence[str]
    excluded: Sequence[str]
    k: int
    explain: bool = False
    times: Sequence[float] | None = None


class ListItem(NamedTuple):
    """An item of a list; `because` are ids and cosines of near items of the history."""

    id: str
    title: str
    score: float
    because: tuple[tuple[str, float], ...] = ()


class ItemList(NamedTuple):
    """The answer to a `ListRequest`.

    Attributes:
      version: version of the model that made the list.
      items: best first.
      source: "model", or "popularity" if no item of the history is known.
    """

    version: str
    items: list[ListItem]
    source: str


class UnknownItem(KeyError):
    """There is no such item in the catalogue."""


class Popularity:
    """The popularity of the items that a model was trained with.

    Args:
      live: the catalogue.

    Attributes:
      columns: the columns of these items, most popular first.
    """

    def __init__(self, live: LiveCatalogue):
        items = live.model.items
        self.columns, shares_N = most_popular(items, len(items), None)
        self._shares_N = np.empty(len(items))
        self._shares_N[self.columns] = shares_N

    def scores(self, columns: np.ndarray) -> np.ndarray:
        """Returns the shares of training events; 0 for items that were added later."""
        known = columns < len(self._shares_N)
        return np.where(known, self._shares_N[np.where(known, columns, 0)], 0.0)


class Timings(NamedTuple):
    """The size of a batch and the seconds that `Engine` took for it."""

    size: int
    seconds: float


class Engine:
    """Answers requests from one thread; every method returns a `Future`.

    Args:
      live: the catalogue.
      version: version of its model.
      report: receives `Timings` of every batch of lists.
    """

    def __init__(
        self,
        live: LiveCatalogue,
        version: str,
        report: Callable[[Timings], None] = lambda timings: None,
    ):
        self._live = live
        self._version = version
        self._report = report
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._popularity = Popularity(live)
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def live(self) -> LiveCatalogue:
        """The catalogue; other threads may read its ids and titles."""
        return self._live

    @property
    def version(self) -> str:
        """The version of the model."""
        return self._version

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return self._jobs.qsize()

    def recommend(self, request: ListRequest) -> "Future[ItemList]":
        """Makes a list."""
        return self._submit(request, self._jobs.qsize())

    def encode_items(self, items: Sequence[NewItem]) -> "Future[EncodedItems]":
        """Encodes items from their texts, for `insert_items`."""
        return self._submit(lambda: encode_items(self._live, items), self._jobs.qsize())

    def insert_items(self, items: EncodedItems) -> "Future[None]":
        """Adds encoded items, which can be recommended at once, or changes them."""
        return self._submit(lambda: insert_items(self._live, items), 0)

    def hide(self, name: str, hidden: bool) -> "Future[None]":
        """Takes an item out of all lists, or puts it back.

        The future raises UnknownItem if there is no such item.
        """

        def job() -> None:
            self._live.hide(self._column(name), hidden)

        return self._submit(job, 0)

    def rank(
        self,
        history: Sequence[str],
        names: Sequence[str],
        times: Sequence[float] | None = None,
    ) -> "Future[ItemList]":
        """Orders at most `MAX_SCORED` items, best first.

        The future raises UnknownItem if there is no such item. `times` are as in
        `ListRequest`.
        """

        def job() -> ItemList:
            live = self._live
            columns = np.array([self._column(name) for name in names], np.int64)
            rows, own = live.known(history, times)
            if len(rows):
                scores_K, source = live.score(rows, columns, own), FROM_MODEL
            else:
                scores_K, source = self._popularity.scores(columns), FROM_POPULARITY
            hidden_K = np.array([c in live.hidden for c in columns.tolist()], bool)
            order = np.argsort(-scores_K[~hidden_K], kind="stable")
            columns, scores_K = columns[~hidden_K][order], scores_K[~hidden_K][order]
            return ItemList(self._version, self._named(columns, scores_K), source)

        return self._submit(job, self._jobs.qsize())

    def neighbours(self, name: str, k: int) -> "Future[list[ListItem]]":
        """Returns the nearest items, with their cosines as scores.

        The future raises UnknownItem if there is no such item.
        """

        def job() -> list[ListItem]:
            found = self._live.neighbours(self._column(name), k)
            return self._named(*found)

        return self._submit(job, self._jobs.qsize())

    def encode(self, texts: Sequence[str]) -> "Future[np.ndarray]":
        """Returns the vectors of texts, by which items are ranked."""

        def job() -> np.ndarray:
            encoder = self._live.model.item_encoder
            return encoder.encode(texts).candidates_NxD

        return self._submit(job, self._jobs.qsize())

    def replace(self, live: LiveCatalogue, version: str) -> "Future[None]":
        """Puts another model, which is warm, in the place of the present one."""

        popularity = Popularity(live)  # which sorts all items, in the caller's thread

        def job() -> None:
            self._live, self._version = live, version
            self._popularity = popularity

        return self._submit(job, 0)

    def close(self) -> None:
        """Answers what waits, and ends the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _submit(self, job: Any, waiting: int) -> "Future[Any]":
        if waiting >= MAX_QUEUE:
            raise QueueFull
        future: Future[Any] = Future()
        self._jobs.put((job, future))
        return future

    def _work(self) -> None:
        ended = False
        while not ended:
            batch = [self._jobs.get()]
            # A batch of lists ends at any other job, so that jobs keep their order.
            while (
                isinstance(batch[-1], tuple)
                and isinstance(batch[-1][0], ListRequest)
                and len(batch) < BATCH_SIZES[-1]
                and not self._jobs.empty()
            ):
                batch.append(self._jobs.get())
            ended = batch[-1] is None
            jobs = [each for each in batch if each is not None]
            lists = [each for each in jobs if isinstance(each[0], ListRequest)]
            self._answer(lists)
            for job, future in jobs[len(lists) :]:
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(job())
                    except Exception as e:
                        future.set_exception(e)

    def _answer(self, lists: Sequence[tuple[ListRequest, "Future[Any]"]]) -> None:
        lists = [each for each in lists if each[1].set_running_or_notify_cancel()]
        if not lists:
            return
        start = time.perf_counter()
        try:
            found = self._lists([request for request, _ in lists])
        except Exception as e:
            for _, future in lists:
                future.set_exception(e)
            return
        self._report(Timings(len(lists), time.perf_counter() - start))
        for (_, future), answer in zip(lists, found, strict=True):
            future.set_result(answer)

    def _lists(self, requests: Sequence[ListRequest]) -> list[ItemList]:
        live, queries, positions = self._live, [], []
        columns = live.columns
        histories = []
        for request in requests:
            history, times = live.known(request.history, request.times)
            histories.append(history)
            if len(history):
                known = (columns.get(name) for name in request.excluded)
                own = [c for c in known if c is not None]
                # Of too many excluded items, the oldest of the history are dropped.
                excluded = list(dict.fromkeys([*own, *history[::-1].tolist()]))
                positions.append(len(histories) - 1)
                excluded_S = np.array(excluded, np.int64)
                queries.append(Query(history, excluded_S, request.k, times))
        ranked = (
            dict(zip(positions, live.rank(queries), strict=True)) if queries else {}
        )
        answers = []
        for position, request in enumerate(requests):
            if position not in ranked:
                items = self._popular_items(request)
                answers.append(ItemList(self._version, items, FROM_POPULARITY))
                continue
            items = self._named(*ranked[position])
            if request.explain:
                items = self._explain(items, histories[position])
            answers.append(ItemList(self._version, items, FROM_MODEL))
        return answers

    def _explain(
        self, items: Sequence[ListItem], history: np.ndarray
    ) -> list[ListItem]:
        """Adds to each item the nearest two items of the history."""
        live = self._live
        columns = np.array([live.columns[item.id] for item in items], np.int64)
        nearest = live.nearest_in_history(columns, history)
        return [
            item._replace(because=tuple((live.ids[c], cosine) for c, cosine in near))
            for item, near in zip(items, nearest, strict=True)
        ]

    def _popular_items(self, request: ListRequest) -> list[ListItem]:
        live, excluded = self._live, {*request.excluded, *request.history}
        columns: list[int] = []
        for column in map(int, self._popularity.columns):
            if len(columns) == request.k:
                break
            if column not in live.hidden and live.ids[column] not in excluded:
                columns.append(column)
        found = np.array(columns, np.int64)
        return self._named(found, self._popularity.scores(found))

    def _named(self, columns: np.ndarray, scores: np.ndarray) -> list[ListItem]:
        live = self._live
        return [
            ListItem(live.ids[column], live.titles[column], float(score))
            for column, score in zip(columns.tolist(), scores, strict=True)
        ]

    def _column(self, name: str) -> int:
        column = self._live.columns.get(name)
        if column is None:
            raise UnknownItem(name)
        return column
