"""Fine-tunes a model on new events, compares it with the old one, and promotes it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recjax.common.errors import UserError
from recjax.config.base import freeze, get_config, phase
from recjax.config.keys import SECTIONS
from recjax.data.dataset import NO_SPLIT
from recjax.data.splits import load_data
from recjax.evaluation.metrics import bootstrap_means, interval, rank_metric
from recjax.feedback.dataset import (
    PREFIX,
    TIME,
    USER,
    dated_histories,
    read_feedback,
    with_stored_items,
    write_dataset,
)
from recjax.feedback.promotion import promote
from recjax.inference.files import locate_model
from recjax.inference.frames import read_parquet
from recjax.inference.model import Model
from recjax.inference.parts import CURSOR, ITEM, STORE, make_history_table
from recjax.models.heads import BIASED_GROUPS
from recjax.run.train import run
from recjax.serving.store import Store

PHASE = "feedback"
SAMPLES = 1000  # bootstrap samples of the interval of a difference


class Settings(NamedTuple):
    """The settings of one round of learning.

    Attributes:
      epochs: at most; fewer if validation does not improve.
      lr: learning rate.
      encoder_layers: top layers of the text encoder to train; 0 trains the towers.
      fraction: newest fraction of the new events that the models are compared on.
      min_events: fewer new events than this are left for the next time.
      metric: of the comparison.
      keep: versions of the model that are kept.
      promote: whether a candidate that is not worse becomes the model.
    """

    epochs: int = 10
    lr: float = 1e-3
    encoder_layers: int = 0
    fraction: float = 0.3
    min_events: int = 100
    metric: str = "ndcg@10"
    keep: int = 3
    promote: bool = True


class Outcome(NamedTuple):
    """The outcome of one round of learning.

    Attributes:
      events: number of new interactions.
      compared: number of test events.
      incumbent, candidate: mean of the metric.
      difference: candidate minus incumbent, with a 95% interval over users.
      promoted: version that the model has now; None if it stays.
    """

    events: int
    compared: int
    incumbent: float
    candidate: float
    difference: dict[str, float]
    promoted: str | None


def learn(name: str, store: Store, folder: Path, settings: Settings) -> Outcome | None:
    """Learns from the events since a model's cursor.

    Args:
      name: a run directory or a model directory.
      store: the events.
      folder: a directory for data and run, which must be new.
      settings: how to learn.

    Returns:
      The outcome; None if there are too few new events.

    Raises:
      UserError: the model cannot be read or trained, or reads the times of events.
      StoreError: the store cannot be read.
    """
    place = locate_model(name)
    incumbent = Model.from_pretrained(place)
    if incumbent.recommender.reads_times:
        # It would be trained with the order of the events instead of their times.
        raise UserError(
            f"{place}: a model with user_tower.time cannot learn from feedback yet; "
            "train it again on all events"
        )
    feedback = read_feedback(incumbent, store)
    incumbent = with_stored_items(incumbent, feedback.items)
    data = folder / "data"
    data.mkdir(parents=True)
    histories = dated_histories(incumbent, feedback)
    new = write_dataset(incumbent, histories, data)
    if new < settings.min_events:
        return None
    config = feedback_config(incumbent, place, data, new, settings)
    run(config, str(folder / "run"))
    candidate = with_feedback(
        with_input_columns(Model.from_pretrained(folder / "run"), incumbent),
        {user: [item for item, _ in dated] for user, dated in histories.items()},
        {CURSOR: feedback.last, STORE: feedback.store},
    )
    ranks = {
        "incumbent": _ranks(incumbent, config),
        "candidate": _ranks(candidate, config),
    }
    users_R = load_data(config).test.users_R
    values = {x: rank_metric(r, settings.metric) for x, r in ranks.items()}
    difference_R = values["candidate"] - values["incumbent"]
    difference = interval(
        float(difference_R.mean()),
        bootstrap_means(
            difference_R[:, None], users_R, bootstrap_samples=SAMPLES, seed=0
        )[:, 0],
    )
    promoted = None
    if settings.promote and difference["value"] >= 0:
        candidate.save_pretrained(folder / "candidate")
        promoted = promote(folder / "candidate", place, settings.keep)
    return Outcome(
        new,
        len(difference_R),
        float(values["incumbent"].mean()),
        float(values["candidate"].mean()),
        difference,
        promoted,
    )


def feedback_config(
    model: Model, place: Path, data: Path, new: int, settings: Settings
) -> Any:
    """Returns the config of a run that goes on from a model.

    Validation and test are the newest fractions of the new events.
    """
    config = get_config()
    own = model.parts.config
    for section in ("item_tower", "user_tower", "head", "loss", "optim", "text"):
        config[section].update(own[section])
    if own.data.split == NO_SPLIT:  # weights, not candidates to choose from
        config.head.fusion_weights = SECTIONS["head"]["fusion_weights"].default
        for key in BIASED_GROUPS:
            if config.head[key]:
                config.head[key] = tuple(sorted({0.0, *config.head[key]}))
    config.seed = own.seed
    config.data.update(
        source=str(data),
        format="parquet",
        file_prefix=PREFIX,
        split="time",
        user=USER,
        item=own.data.item,
        time=TIME,
        history_length=own.data.history_length,
        windows=own.data.windows,
        reverse=own.data.reverse,
    )
    total = len(read_parquet(data / f"{PREFIX}.inter.parquet"))
    test = settings.fraction * new / total
    config.data.split_fractions = (test / 2, test)
    config.text.template, config.text.title = "{text}", "{title}"
    rules = freeze("all")
    if model.parts.encoder is not None:
        # The weights come from the model, only the description from its files.
        config.text.encoder, config.text.pretrained = str(place / "encoder"), False
        if settings.encoder_layers:
            layers = model.encoder_layers
            rules = freeze(settings.encoder_layers, layers=layers)
    config.train.update(
        batch_size=own.train.batch_size,
        dtype=own.train.dtype,
        metric=settings.metric,
        init_from=str(place),
    )
    config.train.phases = (
        phase(PHASE, epochs=settings.epochs, lr=settings.lr, lr_mults=rules),
    )
    config.eval.mask_seen = own.eval.mask_seen
    config.eval.baselines, config.eval.zero_shot = (), False
    return config.lock()


def with_input_columns(candidate: Model, incumbent: Model) -> Model:
    """Returns the candidate with the columns and templates of the incumbent's data.

    The candidate was trained on events of the store and on texts without columns.
    """
    own = incumbent.parts.config
    config = candidate.parts.config.copy_and_resolve_references().unlock()
    for key in ("user", "item", "time"):
        config.data[key] = own.data[key]
    config.text.template, config.text.title = own.text.template, own.text.title
    about = dict(candidate.parts.about)
    about["pretrained"] = incumbent.parts.about.get("pretrained")
    return Model(replace(candidate.parts, config=config.lock(), about=about))


def with_feedback(
    model: Model, histories: dict[str, list[str]], cursor: dict[str, Any]
) -> Model:
    """Returns a model with new histories and the cursor of its events."""
    row_of = {name: row for row, name in enumerate(model.items[ITEM])}
    rows = [[row_of[item] for item in items] for items in histories.values()]
    table = make_history_table(list(histories), rows)
    about = {**model.parts.about, **cursor}
    return Model(replace(model.parts, histories=table, about=about))


def _ranks(model: Model, config: Any) -> np.ndarray:
    """Returns the ranks of the test targets of a run's data."""
    data = load_data(config)
    test, ids = data.test, data.item_ids
    if not len(test):
        raise UserError("feedback: no event is left to compare the models on")
    histories = [ids[test.history(i)].tolist() for i in range(len(test))]
    return model.ranks(histories, ids[test.targets_R].tolist())
