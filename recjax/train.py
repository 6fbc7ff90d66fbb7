"""The run, read top to bottom: data, model, baselines, phases, results."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from recjax import optim, report, sharding, summaries, trees
from recjax.baselines import BASELINES
from recjax.catalogue import encode_prefix
from recjax.checkpoint import Checkpoints
from recjax.data import sources
from recjax.data.batches import Batch, Items
from recjax.data.protocol import load_data
from recjax.data.text import Tokens, pack, tokenize
from recjax.errors import UserError
from recjax.evaluate import Evaluation, Evaluator, rating_results
from recjax.losses import LOSSES, NEGATIVES
from recjax.metrics import Interval, with_intervals
from recjax.models.prefix import TEXT
from recjax.models.pretrained import load_config, load_params
from recjax.models.recommender import Recommender, make_model
from recjax.phase import run_phase
from recjax.run import Run


def run(config: Any, workdir: str) -> dict[str, Any]:
    """Trains and evaluates what the config says; returns `results.json`.

    The same call again resumes where the last save stands, or shows the results of a
    finished run.

    Args:
      config: a locked config as `configs/base.py` declares it.
      workdir: the run directory.

    Raises:
      UserError: anything the user can mend.
    """
    began = time.perf_counter()
    folder = Path(workdir)
    _check_names(config)
    if done := _open_workdir(config, folder):
        return done
    # Dropout bits cost a third of a small step otherwise; the stream they come from
    # is the same on every mesh.
    jax.config.update("jax_threefry_partitionable", False)
    mesh = sharding.make_mesh(config.mesh)
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        active, standing = jax.process_index() == 0, checkpoints.standing()
        reporter = report.Reporter(folder, active=active, resume=standing)
        with contextlib.closing(reporter):
            return _run(config, folder, mesh, checkpoints, reporter, began)


def _run(
    config: Any,
    folder: Path,
    mesh: Mesh,
    checkpoints: Checkpoints,
    reporter: report.Reporter,
    began: float,
) -> dict[str, Any]:
    say = reporter.say

    # Data: files, splits, texts.
    data = load_data(config)
    encoder_dir, encoder_config, tokens = None, None, None
    if "text" in config.item_tower.sources:
        encoder_dir = sources.locate(config.text.encoder, hub=True)
        encoder_config = load_config(encoder_dir)
        texts = data.render(config.text.template)
        _check_max_tokens(config, encoder_config.max_position_embeddings)
        tokens = tokenize(texts, encoder_dir, config.text.max_tokens)
    titles = data.item_ids.tolist()
    if config.data.item_table:
        titles = data.render(config.text.title)
    say(f"\ndata: {config.data.source}, {config.data.split}")
    say(summaries.data_report(data, tokens, config.data.history_length))
    say(f"\nconfig, resolved, in {folder / 'config.json'}:")
    say(summaries.compact_config(config))
    reporter.text("config", f"```json\n{config.to_json(indent=2)}\n```")

    # Model: random towers, pretrained encoder.
    model = make_model(config, data.num_items, encoder_config)
    params = init_params(config, model, encoder_dir, mesh)
    evaluator = Evaluator(config, data, mesh, say)
    r = Run(config, data, tokens, model, mesh, evaluator, reporter, checkpoints)
    r.spend("load", began)

    # Results without training, then after each phase; all of them saved as they come.
    phases = [phase for phase in config.train.phases if phase.epochs]
    if not phases:
        raise UserError("train.phases: no phase has any epochs")
    for phase in phases:  # what is wrong with the last one is said now
        optim.make(config.optim, phase, list(params), steps=1)
    index = checkpoints.params_index()
    if index is None:
        results: dict[str, Any] = {"baselines": run_baselines(r), "phases": {}}
        if tokens is not None and config.eval.before:
            results["before"] = run_before(r, params)
        index, step = 0, 0
        save(r, 0, params, step, results)
    else:
        params, meta = checkpoints.restore_params(index, params)
        step, results, r.seconds = meta["step"], meta["results"], meta["seconds"]
        say(f"\nresuming: {index} of {len(phases)} phases are done")
    for i in range(index, len(phases)):
        outcome = run_phase(r, i, phases[i], params, step)
        params, step = outcome.params, outcome.step
        results["phases"][phases[i].name] = {
            "test": intervals(r, outcome.test),
            "valid": intervals(r, outcome.valid),
            "rating": rating_results(config, data, outcome.valid, outcome.test),
            "epochs": outcome.epochs,
            "trainable": outcome.trained,
            "examples": summaries.examples(
                data, titles, outcome.test.top_RxK, config.report.examples
            ),
        }
        r.spend("total", began)
        began = time.perf_counter()
        save(r, i + 1, params, step, results)

    # The end.
    last = results["phases"][phases[-1].name]
    final = {
        "fingerprint": data.fingerprint,
        "protocol": data.protocol,
        "seed": config.seed,
        "test": last["test"],
        "valid": last["valid"],
        **results,
        "params": {"total": trees.count(params), "trainable": last["trainable"]},
        "seconds": {k: round(v, 2) for k, v in r.seconds.items()},
    }
    text = summaries.results_text(final, config.report.metrics)
    say(f"\n{text}")
    reporter.write("results.md", text + "\n")
    reporter.write("results.json", json.dumps(final, indent=2) + "\n")
    reporter.text("results", text)
    reporter.hparams(
        {**summaries.flat_config(config), "fingerprint": data.fingerprint},
        {f"test/{m}": x["value"] for m, x in last["test"].items()},
    )
    return final


def init_params(
    config: Any, model: Recommender, encoder_dir: Path | None, mesh: Mesh
) -> trees.Flat:
    """Random towers and the pretrained encoder, as a flat dict on the devices.

    The encoder's random weights are never computed: XLA drops what is not returned.

    Raises:
      UserError: weights that do not fit the encoder's config.
    """
    catalogue, batch = _tiny_batch(config.data.history_length)

    def init(key: jax.Array) -> trees.Flat:
        return trees.flatten(model.init(key, catalogue, batch)["params"])

    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(init, key)
    stem = TEXT + "encoder/"
    flat: trees.Flat = {}
    if encoder_dir is not None:
        expected = {p[len(stem) :]: x for p, x in shapes.items() if p.startswith(stem)}
        pooler = config.item_tower.pooling == "pooler"
        loaded = load_params(encoder_dir, expected, pooler=pooler)
        flat = {stem + path: x for path, x in loaded.items()}
    fresh = [path for path in shapes if path not in flat]
    flat |= jax.jit(lambda k: {path: init(k)[path] for path in fresh})(key)
    flat = {path: flat[path] for path in shapes}
    return jax.device_put(flat, sharding.shard_params(flat, mesh, config.mesh.rules))


def save(
    r: Run, index: int, params: trees.Flat, step: int, results: dict[str, Any]
) -> None:
    """Saves what enters phase `index`: parameters, results and accounts so far."""
    meta: dict[str, Any] = {"step": step, "records": r.reporter.records}
    meta |= {"results": results, "seconds": r.seconds}
    r.checkpoints.save_params(index, params, meta)


def run_baselines(r: Run) -> dict[str, dict[str, Interval]]:
    """Fits and tests every baseline that the config names."""
    start = time.perf_counter()
    results = {}
    for name in r.config.eval.baselines:
        baseline = BASELINES[name](r.config.seed)
        baseline.fit(r.data.train, r.data.num_items)
        evaluation = r.evaluator.by_baseline(baseline, r.data.test)
        results[name] = intervals(r, evaluation)
    r.spend("baselines", start)
    return results


def run_before(r: Run, params: trees.Flat) -> dict[str, Interval]:
    """Tests the pretrained encoder without a gradient step.

    A pooling that has to be learned is replaced by the mean.
    """
    start = time.perf_counter()
    pooling = r.config.item_tower.pooling
    model = r.model.clone(item_pooling="mean" if pooling == "attention" else pooling)
    assert model.encoder_config is not None
    blocks = model.encoder_config.num_hidden_layers + 2
    vectors_NxE = encode_prefix(r, model, params, blocks)["vectors_NxE"]
    evaluation = r.evaluator.by_text(r.put_whole(vectors_NxE), r.data.test)
    r.spend("before", start)
    return intervals(r, evaluation)


def intervals(r: Run, evaluation: Evaluation) -> dict[str, Interval]:
    """Means over the rows with bootstrap intervals."""
    return with_intervals(evaluation.values, resamples=r.config.eval.resamples)


def _open_workdir(config: Any, folder: Path) -> dict[str, Any] | None:
    """Makes the run directory; returns the results of a finished run.

    Raises:
      UserError: the directory cannot be written or belongs to another config.
    """
    text = config.to_json(indent=2) + "\n"
    path = folder / "config.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text)
    except OSError as e:
        raise UserError(f"--workdir {folder}: {e.strerror}") from None
    if (old := path.read_text()) != text:
        changes = summaries.config_changes(json.loads(old), json.loads(text))
        raise UserError(
            f"--workdir {folder} holds a run of another config ({changes}); "
            "choose another directory"
        )
    if (folder / "results.json").exists():
        print(f"{folder} holds a finished run:\n")
        print((folder / "results.md").read_text())
        return json.loads((folder / "results.json").read_text())
    return None


def _check_names(c: Any) -> None:
    """Refuses unknown names before any time is spent."""
    metrics = [f"{m}@{k}" for m in ("hr", "ndcg", "mrr") for k in c.eval.ks]
    for key, name, known in (
        ("loss.name", c.loss.name, LOSSES),
        ("loss.negatives", c.loss.negatives, NEGATIVES),
        ("data.windows", c.data.windows, ("last", "all")),
        ("train.dtype", c.train.dtype, ("float32", "bfloat16")),
        ("train.metric", c.train.metric, (*metrics, "auc")),
        *(("eval.baselines", name, BASELINES) for name in c.eval.baselines),
        *(("report.metrics", name, (*metrics, "auc")) for name in c.report.metrics),
    ):
        if name not in known:
            raise UserError(f"{key}: {name!r} is not one of {', '.join(known)}")
    phases = [phase.name for phase in c.train.phases]
    if len(set(phases)) < len(phases):
        raise UserError(f"train.phases: two of {', '.join(phases)} have one name")


def _check_max_tokens(config: Any, limit: int) -> None:
    if not 2 < config.text.max_tokens <= limit:
        raise UserError(
            f"text.max_tokens: {config.text.max_tokens} is not within 3 and {limit}, "
            "the encoder's positions"
        )


class _Shapes(NamedTuple):
    """The smallest input that shows a model all its shapes."""

    catalogue: dict[str, Any]
    batch: Batch


def _tiny_batch(history_length: int) -> _Shapes:
    tokens = Tokens(np.zeros(1, np.int32), np.array([0, 1]))
    rows_U = np.zeros(1, np.int32)
    items = Items(rows_U, np.zeros(1, np.float32), pack(tokens, rows_U, width=1))
    history_BxH = np.zeros((1, history_length), np.int32)
    one_BxT = np.zeros((1, 1), np.int32)
    batch = Batch(history_BxH, history_BxH == 0, one_BxT, one_BxT == 0, items)
    return _Shapes({"text": {"ids_T": jnp.zeros(1, jnp.int32)}}, batch)
