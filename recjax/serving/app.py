"""The HTTP interface: routes, JSON, limits, metrics and the page."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException

from recjax import __version__
from recjax.common.errors import UserError
from recjax.common.text import shorten, visible
from recjax.data.dataset import NO_SPLIT
from recjax.serving.bodies import (
    Change,
    Feedback,
    Id,
    Items,
    Predict,
    Rank,
    Recommend,
    Reload,
    Texts,
)
from recjax.serving.engine import ListItem, UnknownItem
from recjax.serving.guard import Guard, error
from recjax.serving.limits import QueueFull
from recjax.serving.live_catalogue import MAX_K
from recjax.serving.live_programs import count_compilations
from recjax.serving.metrics import Metrics
from recjax.serving.new_items import NewItem
from recjax.serving.service import Answer, Service, make_event
from recjax.serving.store import (
    DELETED,
    HIDDEN,
    RETRACTION,
    SHOWN,
    EventConflict,
    StoreError,
)

MAX_MESSAGE = 300  # characters of an error about a body


def make_app(
    service: Service, metrics: Metrics, token: str = "", reloadable: bool = True
) -> FastAPI:
    """Makes the application.

    Args:
      service: the service.
      metrics: what `/metrics` shows.
      token: if given, requests that change something or name users need it as a bearer
        token.
      reloadable: whether `/reload` may load another model from the disk.
    """
    # Only describes the token, so that /docs can send it; `Guard` checks it.
    described = [Security(HTTPBearer(auto_error=False))] if token else []
    app = FastAPI(
        title="recjax",
        version=__version__,
        dependencies=described,
        lifespan=_close_at_the_end(service),
    )
    app.state.service = service
    app.add_middleware(Guard, metrics=metrics, token=token)
    _add_errors(app)
    _add_state(app, service, metrics)
    _add_lists(app, service, metrics)
    _add_items(app, service)
    if reloadable:

        @app.post("/reload")
        async def reload(body: Reload) -> dict[str, Any]:
            version = await service.reload(body.model)
            metrics.model(version)
            return {"model": version}

    return app


def _add_errors(app: FastAPI) -> None:
    """Makes every error one JSON object with the key `error`."""

    @app.exception_handler(StarletteHTTPException)
    async def http(_: Request, e: StarletteHTTPException) -> Response:
        return error(e.status_code, str(e.detail), e.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, e: RequestValidationError) -> Response:
        first = e.errors()[0]
        where = ".".join(visible(str(part)) for part in first["loc"])
        message = first["msg"]
        if first["type"] == "model_attributes_type":
            message = "is not a JSON object, or its Content-Type is not JSON"
        return error(422, shorten(f"{where}: {message}", MAX_MESSAGE))

    @app.exception_handler(UnknownItem)
    async def unknown(_: Request, e: UnknownItem) -> Response:
        return error(404, f"no item {e.args[0]!r}")

    @app.exception_handler(UserError)
    async def refused(_: Request, e: UserError) -> Response:
        return error(409, str(e))

    @app.exception_handler(QueueFull)
    async def busy(_: Request, e: QueueFull) -> Response:
        return error(429, "too many requests wait; try again", {"Retry-After": "1"})

    @app.exception_handler(EventConflict)
    async def conflict(_: Request, e: EventConflict) -> Response:
        return error(409, str(e))

    @app.exception_handler(Exception)
    async def failed(_: Request, e: Exception) -> Response:
        return error(500, "the service failed; its log says why")

    @app.exception_handler(StoreError)
    async def broken(_: Request, e: StoreError) -> Response:
        return error(
            503, f"the store failed: {e}; an event can be sent again with the same id"
        )


def _add_state(app: FastAPI, service: Service, metrics: Metrics) -> None:
    """Adds health, metrics, the description of the model, and the page."""

    @app.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/health/ready")
    async def ready() -> dict[str, Any]:
        return {"ready": True, "model": service.engine.version}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> str:
        metrics.gauges(service.engine.waiting, count_compilations())
        return metrics.text()

    @app.get("/model")
    async def model() -> dict[str, Any]:
        live = service.live
        about = live.model.parts.about
        return {
            "model": service.engine.version,
            "items": len(live),
            "room": live.capacity - len(live),
            "metrics": about.get("metrics", {}),
            "held_out": about.get("split") != NO_SPLIT,
            "fingerprint": about.get("fingerprint"),
            "takes_texts": live.model.parts.encoder is not None,
        }

    page = files("recjax.serving") / "page"
    for route, name, kind in (
        ("/", "index.html", "text/html; charset=utf-8"),
        ("/page.js", "page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "page.css", "text/css; charset=utf-8"),
    ):
        content = (page / name).read_text(encoding="utf-8")
        app.add_api_route(
            route, _constant(content, kind), include_in_schema=False, methods=["GET"]
        )


def _close_at_the_end(service: Service) -> Any:
    """Closes the service when the application ends, after the last answer."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    return lifespan


def _constant(content: str, kind: str) -> Callable[[], Awaitable[Response]]:
    async def respond() -> Response:
        return Response(content, media_type=kind)

    return respond


def _add_lists(app: FastAPI, service: Service, metrics: Metrics) -> None:
    """Adds events and lists."""

    @app.post("/feedback")
    async def feedback(body: Feedback) -> dict[str, Any]:
        items = [item.id for item in body.items]
        event = make_event(body.user, items, body.event, body.id, body.timestamp)
        sequence = await service.add_event(event)
        metrics.event(body.event == RETRACTION)
        return {"id": event.id, "sequence": sequence}

    @app.get("/recommend/{user:path}")
    async def recommend_user(
        user: Id,
        k: Annotated[int, Query(ge=1, le=MAX_K - 1)] = 10,
        explain: bool = False,
    ) -> dict[str, Any]:
        start = time.perf_counter()
        answer = await service.recommend_user(user, k, (), explain)
        return _list(answer, start)

    @app.post("/recommend")
    async def recommend(body: Recommend) -> dict[str, Any]:
        return await _recommend(service, body)

    @app.post("/rank")
    async def rank(body: Rank) -> dict[str, Any]:
        start = time.perf_counter()
        _check_either(body)
        names = [item.id for item in body.items]
        answer = await service.rank(body.user, body.history or [], names)
        return _list(answer, start)

    @app.post("/v1/models/recjax:predict")
    async def predict(body: Predict) -> dict[str, Any]:
        lists = (_recommend(service, each) for each in body.instances)
        return {"predictions": await asyncio.gather(*lists)}


async def _recommend(service: Service, body: Recommend) -> dict[str, Any]:
    """Makes the list of one request."""
    start = time.perf_counter()
    _check_either(body)
    more = body.k, body.exclude, body.explain
    if body.user is not None:
        answer = await service.recommend_user(body.user, *more)
    else:
        answer = await service.recommend_history(body.history or [], *more)
    return _list(answer, start)


def _check_either(body: Recommend | Rank) -> None:
    if (body.user is None) == (body.history is None):
        raise HTTPException(422, "give either user or history")


def _add_items(app: FastAPI, service: Service) -> None:
    """Adds items: search, neighbours, additions and changes."""

    @app.get("/items")
    async def search(
        q: Annotated[str, Query(max_length=200)] = "",
        k: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        # In a thread, because it reads the titles of all items.
        found = await asyncio.to_thread(service.search, q, k)
        return {"items": [{"id": name, "title": title} for name, title in found]}

    @app.get("/items/{item:path}/neighbors")
    async def neighbours(
        item: Id, k: Annotated[int, Query(ge=1, le=MAX_K - 1)] = 10
    ) -> dict[str, Any]:
        found = await service.neighbours(item, k)
        return {"model": service.engine.version, "items": [*map(_item, found)]}

    @app.post("/items")
    async def add(body: Items) -> dict[str, Any]:
        items = [NewItem(x.id, x.text, x.title or "") for x in body.items]
        await service.put_items(items)
        return {"added": len({item.id for item in items})}

    @app.patch("/items/{item:path}")
    async def change(item: Id, body: Change) -> dict[str, Any]:
        await service.set_state(item, HIDDEN if body.hidden else SHOWN)
        return {"id": item, "hidden": body.hidden}

    @app.delete("/items/{item:path}")
    async def delete(item: Id) -> dict[str, Any]:
        await service.set_state(item, DELETED)
        return {"id": item, "deleted": True}

    @app.post("/embed")
    async def embed(body: Texts) -> dict[str, Any]:
        vectors = await service.encode(body.texts)
        return {"model": service.engine.version, "vectors": vectors.tolist()}


def _list(answer: Answer, start: float) -> dict[str, Any]:
    return {
        "model": answer.found.version,
        "last_event": answer.last_event,
        "took_ms": round((time.perf_counter() - start) * 1000, 3),
        "source": answer.found.source,
        "items": [_item(item) for item in answer.found.items],
    }


def _item(item: ListItem) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": item.id, "title": item.title, "score": item.score}
    if item.because:
        shown["because"] = [{"id": x, "cosine": cosine} for x, cosine in item.because]
    return shown
