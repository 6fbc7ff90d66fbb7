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

from recjax import report, sharding, summaries, trees
from recjax.buckets import count_events
from recjax.checkpoint import Checkpoints
from recjax.checks import (
    check_catalogue,
    check_config,
    check_encoder,
    check_trained,
    find_gaps,
)
from recjax.compile_cache import keep_compiled, platform_key
from recjax.data import sources
from recjax.data.protocol import load_data
from recjax.data.text import tokenize
from recjax.errors import UserError
from recjax.evaluate import Evaluator
from recjax.fit import run_phase
from recjax.models.pretrained import WEIGHTS, load_config
from recjax.models.recommender import make_model
from recjax.params import init_params, trace_init
from recjax.prefix_store import digest
from recjax.processes import leave_if_lost
from recjax.provenance import CODE, usable_cores, versions
from recjax.results import phase_results
from recjax.run import Moment, Run
from recjax.signals import Signals
from recjax.steps import Compiler
from recjax.untrained import Untrained
from recjax.wandb_sink import WandbSink
from recjax.workdir import check_disk, claim, open_workdir


def run(config: Any, workdir: str) -> dict[str, Any]:
    """Trains and evaluates what the config says; returns `results.json`.

    The same call again resumes where the last save stands, or shows the results of a
    finished run.

    Args:
      config: a locked config as `configs/base.py` declares it.
      workdir: the run directory.

    Raises:
      UserError: anything the user can mend.
      Stopped: a signal came; the same call goes on from there.
    """
    began = time.perf_counter()
    folder = Path(workdir)
    check_config(config)
    with claim(folder):
        if done := open_workdir(config, folder):
            return done
        with open_run(config, folder, began) as (r, params), r.signals.heard():
            return _run(r, params)


def _run(r: Run, params: trees.Flat) -> dict[str, Any]:
    config, data, checkpoints, say = r.config, r.data, r.checkpoints, r.reporter.say
    r.reporter.table("rejected.parquet", data.rejected)
    beside = Untrained(r, params)  # before any parameter is restored
    beside.remember()

    # Results without training, then after each phase; all of them saved as they come.
    phases = trained_phases(config)
    if checkpoints.entered is None:
        results: dict[str, Any] = {"baselines": beside.baselines(), "phases": {}}
        if r.tokens is not None and config.eval.before:
            results["before"] = beside.before()
        index, step, trained = 0, 0, set[str]()
        save(r, 0, params, step, results)
    else:
        params, paths = checkpoints.restore_params(params)
        trained = set(paths)
        index, meta = checkpoints.entered.number, checkpoints.entered.meta
        step, results = meta["step"], meta["results"]
        for what, seconds in (checkpoints.standing or meta)["seconds"].items():
            r.spend(what, seconds)
        # Saves that were made before this was kept have none.
        r.peak_before = (checkpoints.standing or meta).get("peak_memory_mib", 0)
        where = f" in phase {phases[index].name}" if index < len(phases) else ""
        say(f"\nresuming{where}: {index} of {len(phases)} phases are done")
        if index < len(phases) and checkpoints.inside is None:
            say(f"nothing of phase {phases[index].name} was saved yet: it starts anew")
    for i in range(index, len(phases)):
        outcome = run_phase(r, i, phases[i], params, step)
        step, trained = outcome.step, trained | set(outcome.trained)
        params = params | outcome.trained
        results["phases"][phases[i].name] = phase_results(r, outcome)
        r.reporter.ranks(f"phase-{phases[i].name}", outcome.test.rank_R)
        del outcome  # its vectors of the items are not kept through the next phase
        save(r, i + 1, {k: v for k, v in params.items() if k in trained}, step, results)
    if not checkpoints.wait_for_result():
        raise UserError(f"{r.reporter.workdir}: the result could not be saved")
    return finish(r, results, params)


@contextlib.contextmanager
def open_run(
    config: Any, folder: Path, began: float, planned: Path | None = None
) -> Iterator[tuple[Run, trees.Flat]]:
    """Everything a run needs, and its initial parameters.

    Args:
      config: checked.
      folder: the run directory, which exists.
      began: when the process began, by `time.perf_counter`.
      planned: where a run would write, if this is none: nothing is computed that
        takes long.

    Raises:
      UserError: data, weights or names that do not fit, or too small a disk.
    """
    # Dropout bits cost a third of a small step otherwise; the stream they come from
    # is the same on every mesh.
    jax.config.update("jax_threefry_partitionable", False)
    # `train.dtype` alone decides: some devices round the products of float32.
    jax.config.update("jax_default_matmul_precision", "float32")
    keep_compiled()
    mesh = sharding.make_mesh(config.mesh)
    with contextlib.ExitStack() as stack:
        reporter = report.Reporter(folder, active=jax.process_index() == 0)
        checkpoints = Checkpoints(folder, reporter.say, config.train.keep)
        stack.enter_context(contextlib.closing(checkpoints))
        try:
            r, params = _make_run(config, mesh, checkpoints, reporter, began, planned)
            for differs in checkpoints.bind(identity(r)):
                reporter.say(f"note: saved with {differs}: from here on other bits")
            reporter.open(resume=checkpoints.standing)
            stack.enter_context(contextlib.closing(reporter))
            if config.report.wandb and reporter.active and planned is None:
                flat = summaries.flat_config(config)
                reporter.mirror = WandbSink(folder, config.report.wandb, flat)
            reporter.text("config", f"```json\n{config.to_json(indent=2)}\n```")
            yield r, params
        except jax.errors.JaxRuntimeError as e:
            leave_if_lost(e)
            raise


def _make_run(
    config: Any,
    mesh: Mesh,
    checkpoints: Checkpoints,
    reporter: report.Reporter,
    began: float,
    planned: Path | None,
) -> tuple[Run, trees.Flat]:
    say = reporter.say
    data = load_data(config)
    check_catalogue(config, data.num_items)
    encoder_dir, encoder_config, tokens = None, None, None
    if "text" in config.item_tower.sources:
        encoder_dir = sources.locate(config.text.encoder, hub=True)
        encoder_config = load_config(encoder_dir)
        texts = data.render(config.text.template)
        check_encoder(config, encoder_config)
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
    say(summaries.data_report(data, tokens, config))
    for odd in summaries.protocol_warnings(data, config.eval):
        say(f"warning: {odd}")
    workdir = planned or reporter.workdir
    where = "" if planned else f", in {workdir / 'config.json'}"
    say(f"\nconfig, resolved{where}:")
    say(summaries.compact_config(config))

    model = make_model(config, data.num_items, encoder_config)
    compiler = Compiler(say, mesh)
    traced = trace_init(config, model)
    phases = trained_phases(config)
    check_trained(config, phases, traced.shapes)
    if encoder_config is not None:
        layers = encoder_config.num_hidden_layers
        for gap in find_gaps(phases, list(traced.shapes), layers):
            say(f"warning: {gap}")
    check_disk(config, phases, traced.shapes, workdir, say)
    params = init_params(config, traced, encoder_dir, mesh, compiler)
    pretrained = None
    if encoder_dir is not None and config.text.pretrained:
        pretrained = sources.sha256(encoder_dir / WEIGHTS)[:12]
    evaluator = Evaluator(config, data, mesh, compiler)
    r = Run(
        config=config,
        data=data,
        titles=titles,
        tokens=tokens,
        model=model,
        mesh=mesh,
        compiler=compiler,
        evaluator=evaluator,
        reporter=reporter,
        checkpoints=checkpoints,
        signals=Signals(),
        pretrained=pretrained,
        began=began,
        dry=planned is not None,
    )
    r.spend_since("load", Moment(began, 0.0))
    return r, params


def trained_phases(config: Any) -> list[Any]:
    """Phases with epochs."""
    return [phase for phase in config.train.phases if phase.epochs]


def save(
    r: Run, index: int, trained: trees.Flat, step: int, results: dict[str, Any]
) -> None:
    """Saves what enters phase `index`: parameters, results and accounts so far.

    Args:
      r: the run.
      index: of the phase; 0 before any.
      trained: the parameters that phases before it trained; all before any.
      step: global step.
      results: so far.
    """
    meta: dict[str, Any] = {"step": step, **r.reporter.marks()}
    meta |= {"results": results, "seconds": r.accounts()}
    meta["peak_memory_mib"] = r.peak_memory()
    with r.signals.deferred():
        r.checkpoints.save_params(index, trained, meta)


def identity(r: Run) -> dict[str, dict[str, Any]]:
    """What a save has to be of to be resumed, and what may differ."""
    texts = [] if r.tokens is None else [("ids", r.tokens.ids)]
    items = "\n".join(map(str, r.data.item_ids)).encode()
    users = "\n".join(map(str, r.data.user_ids)).encode()
    must = {
        **summaries.flat_config(r.config),
        "data": r.data.fingerprint,
        "pretrained": r.pretrained,
        "catalogue": digest([("items", np.frombuffer(items, np.uint8)), *texts]),
        "users": digest([("users", np.frombuffer(users, np.uint8))]),
    }
    may: dict[str, Any] = {"code": CODE, **versions()}
    may |= {"processes": jax.process_count(), "mesh": dict(r.mesh.shape)}
    may |= {"device": jax.devices()[0].device_kind, "processor": platform_key()}
    may["cores"] = len(usable_cores())
    return {"must": json.loads(json.dumps(must)), "may": json.loads(json.dumps(may))}


def finish(r: Run, results: dict[str, Any], params: trees.Flat) -> dict[str, Any]:
    """Shows and writes the results; returns `results.json`."""
    phases = list(results["phases"].values())
    last, most = phases[-1], max(phase["trainable"] for phase in phases)
    final = {
        "fingerprint": r.data.fingerprint,
        "pretrained": r.pretrained,
        "protocol": r.data.protocol,
        "seed": r.config.seed,
        "test": last["test"],
        "valid": last["valid"],
        **results,
        "params": {"total": trees.count(params), "trainable": most},
        "seconds": {k: round(v, 2) for k, v in r.accounts().items()},
        "peak_memory_mib": r.peak_memory(),
        "cores": len(usable_cores()),
        "code": CODE,
        "versions": versions(),
    }
    test = r.data.test
    rows = {
        "user": r.data.user_ids[test.users_R].tolist(),
        "events": count_events(r.data)[test.targets_R],
    }
    before = ["before"] if "before" in results else []
    trained = [f"phase-{name}" for name in results["phases"]]
    r.reporter.ranks_table(rows, [*results["baselines"], *before, *trained])
    text = summaries.results_text(final, r.config.report.metrics)
    r.reporter.say(f"\n{text}")
    r.reporter.write("results.md", text + "\n")
    r.reporter.text("results", text)
    r.reporter.hparams(
        {**summaries.flat_config(r.config), "fingerprint": r.data.fingerprint}
    )
    # Last: with these the run is finished, and nothing of it will be made again.
    r.reporter.write(
        "results.json", json.dumps(final, indent=2, allow_nan=False) + "\n"
    )
    return final
