"""The run, read top to bottom: data, model, baselines, phases, results."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from recjax import compile_cache, optim, report, sharding, summaries, trees
from recjax.baselines import BASELINES
from recjax.catalogue import encode_prefix
from recjax.checkpoint import Checkpoints
from recjax.checks import check_config, check_max_tokens, open_workdir
from recjax.data import sources
from recjax.data.protocol import Rows, load_data
from recjax.data.text import tokenize
from recjax.errors import UserError
from recjax.evaluate import Evaluation, Evaluator, rating_results
from recjax.metrics import Interval, with_intervals
from recjax.models.pretrained import load_config
from recjax.models.recommender import make_model
from recjax.params import init_params
from recjax.phase import run_phase
from recjax.run import Moment, Run
from recjax.steps import Compiler


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
    check_config(config)
    if done := open_workdir(config, folder):
        return done
    with open_run(config, folder, began) as (r, params):
        return _run(r, params)


def _run(r: Run, params: trees.Flat) -> dict[str, Any]:
    config, data, checkpoints, say = r.config, r.data, r.checkpoints, r.reporter.say

    # Results without training, then after each phase; all of them saved as they come.
    phases = [phase for phase in config.train.phases if phase.epochs]
    for phase in phases:  # what is wrong with the last one is said now
        optim.make(config.optim, phase, list(params), steps=1)
    index = checkpoints.params_index()
    if index is None:
        results: dict[str, Any] = {"baselines": run_baselines(r), "phases": {}}
        if r.tokens is not None and config.eval.before:
            results["before"] = run_before(r, params)
        index, step = 0, 0
        save(r, 0, params, step, results)
    else:
        params, meta = checkpoints.restore_params(index, params)
        if meta["fingerprint"] != data.fingerprint:
            raise UserError(
                f"--workdir {r.reporter.workdir}: its data was of protocol "
                f"{meta['fingerprint']}, now it is {data.fingerprint}; choose another "
                "directory"
            )
        step, results = meta["step"], meta["results"]
        at = checkpoints.standing() or meta
        for what, seconds in at["seconds"].items():
            r.spend(what, seconds)
        say(f"\nresuming: {index} of {len(phases)} phases are done")
        if index < len(phases) and "phase" not in at:
            say(f"nothing of phase {phases[index].name} was saved yet: it starts anew")
    for i in range(index, len(phases)):
        outcome = run_phase(r, i, phases[i], params, step)
        params, step = outcome.params, outcome.step
        results["phases"][phases[i].name] = {
            "test": intervals(r, outcome.test, data.test),
            "valid": intervals(r, outcome.valid, data.valid),
            "rating": rating_results(config, data, outcome.valid, outcome.test),
            "epochs": outcome.epochs,
            "trainable": outcome.trained,
            "examples": summaries.examples(
                data,
                r.titles,
                outcome.test.top_RxK,
                count=config.report.examples,
                like=config.eval.like_threshold,
            ),
        }
        save(r, i + 1, params, step, results)
    return finish(r, results, params)


@contextlib.contextmanager
def open_run(
    config: Any, folder: Path, began: float
) -> Iterator[tuple[Run, trees.Flat]]:
    """Everything a run needs, and its initial parameters.

    Args:
      config: checked.
      folder: the run directory, which exists.
      began: when the process began, by `time.perf_counter`.

    Raises:
      UserError: data, weights or names that do not fit.
    """
    # Dropout bits cost a third of a small step otherwise; the stream they come from
    # is the same on every mesh.
    jax.config.update("jax_threefry_partitionable", False)
    # `train.dtype` alone decides: some devices round the products of float32.
    jax.config.update("jax_default_matmul_precision", "float32")
    compile_cache.keep_compiled()
    mesh = sharding.make_mesh(config.mesh)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder)))
        active, standing = jax.process_index() == 0, checkpoints.standing()
        reporter = report.Reporter(folder, active=active, resume=standing)
        stack.enter_context(contextlib.closing(reporter))
        yield _make_run(config, mesh, checkpoints, reporter, began)


def _make_run(
    config: Any,
    mesh: Mesh,
    checkpoints: Checkpoints,
    reporter: report.Reporter,
    began: float,
) -> tuple[Run, trees.Flat]:
    say = reporter.say
    data = load_data(config)
    encoder_dir, encoder_config, tokens = None, None, None
    if "text" in config.item_tower.sources:
        encoder_dir = sources.locate(config.text.encoder, hub=True)
        encoder_config = load_config(encoder_dir)
        texts = data.render(config.text.template)
        check_max_tokens(config, encoder_config.max_position_embeddings)
        tokens = tokenize(
            texts,
            encoder_dir,
            max_tokens=config.text.max_tokens,
            vocab_size=encoder_config.vocab_size,
        )
    titles = data.item_ids.tolist()
    if config.data.item_table:
        titles = data.render(config.text.title)
    say(f"\ndata: {config.data.source}, {config.data.split}")
    say(summaries.data_report(data, tokens, config.data.history_length))
    say(f"\nconfig, resolved, in {reporter.workdir / 'config.json'}:")
    say(summaries.compact_config(config))
    reporter.text("config", f"```json\n{config.to_json(indent=2)}\n```")

    model = make_model(config, data.num_items, encoder_config)
    compiler = Compiler(say)
    params = init_params(config, model, encoder_dir, mesh, compiler)
    evaluator = Evaluator(config, data, mesh, compiler)
    r = Run(
        config,
        data,
        titles,
        tokens,
        model,
        mesh,
        compiler,
        evaluator,
        reporter,
        checkpoints,
        began,
    )
    r.spend_since("load", Moment(began, 0.0))
    return r, params


def save(
    r: Run, index: int, params: trees.Flat, step: int, results: dict[str, Any]
) -> None:
    """Saves what enters phase `index`: parameters, results and accounts so far."""
    meta: dict[str, Any] = {"step": step, "records": r.reporter.records}
    meta |= {"results": results, "seconds": r.accounts()}
    meta["fingerprint"] = r.data.fingerprint
    r.checkpoints.save_params(index, params, meta)


def finish(r: Run, results: dict[str, Any], params: trees.Flat) -> dict[str, Any]:
    """Shows and writes the results; returns `results.json`."""
    last = list(results["phases"].values())[-1]
    final = {
        "fingerprint": r.data.fingerprint,
        "protocol": r.data.protocol,
        "seed": r.config.seed,
        "test": last["test"],
        "valid": last["valid"],
        **results,
        "params": {"total": trees.count(params), "trainable": last["trainable"]},
        "seconds": {k: round(v, 2) for k, v in r.accounts().items()},
    }
    text = summaries.results_text(final, r.config.report.metrics)
    r.reporter.say(f"\n{text}")
    r.reporter.write("results.md", text + "\n")
    r.reporter.write(
        "results.json", json.dumps(final, indent=2, allow_nan=False) + "\n"
    )
    r.reporter.text("results", text)
    r.reporter.hparams(
        {**summaries.flat_config(r.config), "fingerprint": r.data.fingerprint},
        [f"test/{metric}" for metric in last["test"]],
    )
    return final


def run_baselines(r: Run) -> dict[str, dict[str, Interval]]:
    """Fits and tests every baseline that the config names."""
    start, results = r.now(), {}
    for name in r.config.eval.baselines:
        baseline = BASELINES[name](r.config.seed)
        baseline.fit(r.data.train, r.data.num_items)
        evaluation = r.evaluator.by_baseline(baseline, r.data.test)
        results[name] = intervals(r, evaluation, r.data.test)
    r.spend_since("baselines", start)
    return results


def run_before(r: Run, params: trees.Flat) -> dict[str, Interval]:
    """Tests the pretrained encoder without a gradient step.

    A pooling that has to be learned is replaced by the mean.
    """
    start = r.now()
    pooling = r.config.item_tower.pooling
    model = r.model.clone(item_pooling="mean" if pooling == "attention" else pooling)
    assert model.encoder_config is not None
    blocks = model.encoder_config.num_hidden_layers + 2
    vectors_NxE = r.put_whole(np.asarray(encode_prefix(r, model, params, blocks)))
    evaluation = r.evaluator.by_text(vectors_NxE, r.data.test)
    r.spend_since("before", start)
    return intervals(r, evaluation, r.data.test)


def intervals(r: Run, evaluation: Evaluation, rows: Rows) -> dict[str, Interval]:
    """Means over the rows with bootstrap intervals over their users."""
    resamples = r.config.eval.resamples
    return with_intervals(evaluation.values, rows.users_R, resamples=resamples)
