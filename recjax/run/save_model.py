"""Writes a finished run as a model, see `inference.files`."""

from typing import Any

import jax
import numpy as np
import polars as pl

from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, unflatten_params
from recjax.data.dataset import count_events
from recjax.data.histories import complete_histories, complete_times
from recjax.data.ingest.sources import locate_encoder
from recjax.evaluation.model_scorer import ModelScorer
from recjax.evaluation.subgroups import event_group
from recjax.inference import golden
from recjax.inference.card import model_card
from recjax.inference.files import MODEL, save_parts
from recjax.inference.model import Model
from recjax.inference.parts import (
    TRAINED,
    UNTRAINED,
    ItemVectors,
    ModelParts,
    make_history_table,
    make_item_table,
)
from recjax.models.encoders.directory import settings_digest, transformer_folder
from recjax.models.heads import FUSION_WEIGHTS
from recjax.training.context import Run
from recjax.training.make_phase import training_graph


def save_model(
    run: Run, params: FlatParams, fusion: dict[str, Any], results: dict[str, Any]
) -> None:
    """Writes `model/` in the run directory.

    Args:
      run: the run, after its last phase.
      params: all parameters.
      fusion: the fitted baselines of the score fusion, by name.
      results: the content of `results.json`.
    """
    parts = model_parts(run, params, fusion, results)
    if jax.process_index():
        return  # the first process writes for all
    lists = golden.make(Model(parts))
    folder = run.reporter.workdir / MODEL
    save_parts(parts, folder, lists, model_card(parts))


def model_parts(
    run: Run, params: FlatParams, fusion: dict[str, Any], results: dict[str, Any]
) -> ModelParts:
    """Collects the parts of the model; the arguments are those of `save_model`."""
    data = run.data
    # The catalogue is encoded from its texts to the end, whatever the last phase has
    # trained, so that a resumed run writes the same vectors.
    blocks = run.model.encoder_config.num_blocks if run.model.encoder_config else 0
    model = run.model.with_text(frozen_blocks=blocks)
    catalogue = run.catalogue.build(model, params, blocks)
    scorer = ModelScorer(
        model,
        catalogue,
        catalogue.positions_N(),
        1,
        run.compiler,
        training_graph(run),
        event_group(count_events(data)),
    )
    history_NxD, index = scorer.encode_catalogue(unflatten_params(params))
    number = data.num_items
    vectors = ItemVectors(
        *(
            np.asarray(x)[:number]
            for x in (history_NxD, index.candidates_MxD, index.bias_M)
        )
    )
    config, params, fusion = without_unused(run.config, params, fusion)
    encoder = None
    if run.tokens is not None:
        encoder = transformer_folder(locate_encoder(config.text.encoder))
        if settings_digest(encoder) != run.encoder_settings:
            raise UserError(
                f"{encoder}: its config or tokenizer changed during the run; restore "
                "them, and the same command writes the model"
            )
    return ModelParts(
        config=config,
        params={path: np.asarray(x) for path, x in params.items()},
        items=item_table(run),
        vectors=vectors,
        encoder=encoder,
        whitening=catalogue.whitening,
        fusion=fusion,
        histories=history_table(run) if config.report.keep_histories else None,
        about={
            "fingerprint": results["fingerprint"],
            "pretrained": results["pretrained"],
            "seed": results["seed"],
            "code": results["code"],
            "split": config.data.split,
            "protocol": results["protocol"],
            "versions": results["versions"],
            "metrics": {name: results["test"][name] for name in config.report.metrics},
        },
    )


def without_unused(
    config: Any, params: FlatParams, fusion: dict[str, Any]
) -> tuple[Any, FlatParams, dict[str, Any]]:
    """Leaves out the fused baselines with a weight of 0, which only take memory."""
    if FUSION_WEIGHTS not in params:
        return config, params, fusion
    weights = dict(zip(fusion, np.asarray(params[FUSION_WEIGHTS]), strict=True))
    used = {name: weight for name, weight in weights.items() if weight}
    config = config.copy_and_resolve_references().unlock()
    config.head.fusion = tuple(used)
    params = {path: x for path, x in params.items() if path != FUSION_WEIGHTS}
    if used:
        params[FUSION_WEIGHTS] = np.stack([*used.values()])
    return config.lock(), params, {name: fusion[name] for name in used}


def item_table(run: Run) -> pl.DataFrame:
    """Returns the catalogue: one row per item, in the order of the item indices."""
    data, config = run.data, run.config
    texts = run.titles
    if run.tokens is not None:
        texts = data.render(config.text.template, "text.template")
    events_N = count_events(data)
    return make_item_table(
        [str(item) for item in data.item_ids],
        run.titles,
        texts,
        events_N.tolist(),
        np.where(events_N > 0, TRAINED, UNTRAINED).tolist(),
    )


def history_table(run: Run) -> pl.DataFrame:
    """Returns the users, their items, oldest first, and the times that are read."""
    histories = complete_histories(run.data)
    users = [str(run.data.user_ids[user]) for user in histories]
    times = None
    if run.model.reads_times:
        times = [x.tolist() for x in complete_times(run.data).values()]
    return make_history_table(users, [x.tolist() for x in histories.values()], times)
