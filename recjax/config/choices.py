"""The registries that names in a config refer to."""

from collections.abc import Collection


def allowed_names(choices: tuple[str, ...] | str) -> Collection[str]:
    """Returns the names to choose from; empty if every value is allowed.

    Args:
      choices: `Key.choices`, the names themselves or the name of a registry.
    """
    # Read at each call: a user may have registered further names since.
    return registries()[choices] if isinstance(choices, str) else choices


def registries() -> dict[str, Collection[str]]:
    """Returns all registries, with the names that a user has registered until now."""
    # Imported only here, so that the declarations can be read without importing JAX.
    from recjax.baselines import AUTO, BASELINES, TEXT
    from recjax.catalogue.prefix_cache import DTYPES
    from recjax.data.batching.negatives import NEGATIVES
    from recjax.data.ingest.formats import SUFFIXES
    from recjax.data.splits import SPLIT_NAMES
    from recjax.losses import LOSSES
    from recjax.models.heads import HEADS
    from recjax.models.items.text_source import POOLINGS
    from recjax.models.items.tower import COMBINE, SOURCES
    from recjax.models.objectives import OBJECTIVES
    from recjax.models.users import POSITIONS, USER_TOWERS
    from recjax.training.optimizer import OPTIMIZERS, SCHEDULES

    baselines = (*BASELINES, TEXT)
    return {
        "auxiliary_losses": OBJECTIVES,
        "baselines": baselines,
        "cache_dtypes": DTYPES,
        "combinations": COMBINE,
        "file_formats": SUFFIXES,
        # Random scores would only blur the scores that they are added to.
        "fusable_baselines": (*(x for x in baselines if x != "random"), AUTO),
        "heads": HEADS,
        "item_sources": SOURCES,
        "losses": LOSSES,
        "negatives": NEGATIVES,
        "optimizers": OPTIMIZERS,
        "poolings": POOLINGS,
        "positions": POSITIONS,
        "schedules": SCHEDULES,
        "splits": SPLIT_NAMES,
        "user_towers": USER_TOWERS,
    }
