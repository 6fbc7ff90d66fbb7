"""The registries that names in a config refer to.

Each function imports its registry when it is called: the declarations can be read
without importing JAX, and names that a user has registered are accepted.
"""

from collections.abc import Collection


def baselines() -> Collection[str]:
    """Baselines, including the one that compares texts."""
    from recjax.baselines import BASELINES, TEXT

    return (*BASELINES, TEXT)


def fusable_baselines() -> Collection[str]:
    """Baselines whose scores can be added to the model's: all but the random one."""
    return tuple(name for name in baselines() if name != "random")


def cache_dtypes() -> Collection[str]:
    """Number formats of cached encoder states."""
    from recjax.catalogue.prefix_cache import DTYPES

    return DTYPES


def combinations() -> Collection[str]:
    """Ways to combine the vectors of several item sources."""
    from recjax.models.items.tower import COMBINE

    return COMBINE


def file_formats() -> Collection[str]:
    """Formats of data files."""
    from recjax.data.ingest.tables import SUFFIXES

    return SUFFIXES


def heads() -> Collection[str]:
    """Heads, which score a user vector against item vectors."""
    from recjax.models.heads import HEADS

    return HEADS


def item_sources() -> Collection[str]:
    """Item sources."""
    from recjax.models.items.tower import SOURCES

    return SOURCES


def losses() -> Collection[str]:
    """Training losses."""
    from recjax.losses import LOSSES

    return LOSSES


def negatives() -> Collection[str]:
    """Strategies that choose the negatives of a training step."""
    from recjax.data.batching.negatives import NEGATIVES

    return NEGATIVES


def optimizers() -> Collection[str]:
    """Optimizers."""
    from recjax.training.optimizer import OPTIMIZERS

    return OPTIMIZERS


def poolings() -> Collection[str]:
    """Ways to pool the token states of a text."""
    from recjax.models.items.text_source import POOLINGS

    return POOLINGS


def positions() -> Collection[str]:
    """Position encodings of transformer user towers."""
    from recjax.models.users import POSITIONS

    return POSITIONS


def schedules() -> Collection[str]:
    """Learning-rate schedules."""
    from recjax.training.optimizer import SCHEDULES

    return SCHEDULES


def splits() -> Collection[str]:
    """Ways to split the data into training, validation and test."""
    from recjax.data.splits import SPLIT_NAMES

    return SPLIT_NAMES


def user_towers() -> Collection[str]:
    """User towers."""
    from recjax.models.users import USER_TOWERS

    return USER_TOWERS
