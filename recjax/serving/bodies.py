"""The bodies of requests: what they hold, and their limits."""

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
)

from recjax.data.ingest.tables import is_id
from recjax.serving.live_catalogue import MAX_K, MAX_SCORED

MAX_HISTORY, MAX_ITEMS, MAX_TEXT = 4096, 1000, 10_000
MAX_LISTS = 64  # lists of one request


def check_id(value: str) -> str:
    """Refuses an id that no data set can have."""
    if not is_id(value):
        raise ValueError("is not an id")
    return value


def check_text(value: str) -> str:
    """Refuses a text without any character that is not white space."""
    if not value.strip():
        raise ValueError("is empty")
    return value


# No control characters: one of them separates ids in the store, and NUL ends strings.
# U+FFFD is refused too: it replaces bytes of a URL that are not valid UTF-8.
EventId = Annotated[
    str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f\ufffd]+$")
]
Id = Annotated[EventId, AfterValidator(check_id)]
Text = Annotated[
    str,
    StringConstraints(max_length=MAX_TEXT, pattern=r"^[^\x00]+$"),
    AfterValidator(check_text),
]
K = Annotated[int, Field(ge=1, le=MAX_K - 1)]
Kind = Annotated[str, StringConstraints(pattern="^(interaction|retraction)$")]


class Body(BaseModel):
    """The body of a request; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class ItemId(Body):
    """An item by its id."""

    id: Id


class Feedback(Body):
    """What a user did."""

    user: Id
    items: Annotated[list[ItemId], Field(min_length=1, max_length=MAX_ITEMS)]
    event: Kind = "interaction"
    id: EventId | None = None
    timestamp: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)] | None = None


class Recommend(Body):
    """A request for a list: for a user, or for a history."""

    user: Id | None = None
    history: Annotated[list[Id], Field(max_length=MAX_HISTORY)] | None = None
    k: Annotated[K, Strict()] = 10
    exclude: Annotated[list[Id], Field(max_length=MAX_HISTORY)] = []
    explain: bool = False


class Rank(Body):
    """Items to order: for a user, or for a history."""

    user: Id | None = None
    history: Annotated[list[Id], Field(max_length=MAX_HISTORY)] | None = None
    items: Annotated[list[ItemId], Field(min_length=1, max_length=MAX_SCORED)]


class Predict(Body):
    """Requests for lists, as TensorFlow Serving takes them."""

    instances: Annotated[list[Recommend], Field(min_length=1, max_length=MAX_LISTS)]


class Item(Body):
    """An item to add or to change."""

    id: Id
    text: Text
    title: Text | None = None


class Items(Body):
    """Items to add or to change."""

    items: Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]


class Change(Body):
    """A change of an item's state."""

    hidden: bool


class Texts(Body):
    """Texts to encode."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_ITEMS)]


class Reload(Body):
    """The model to take the place of the present one."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
