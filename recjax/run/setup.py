"""Builds everything that a run needs, and its initial parameters."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from recjax.catalogue.arrays import make_catalogue_builder
from recjax.checkpointing.checkpoints import Checkpoints
from recjax.common.config import compact_config, flat_config
from recjax.common.files import file_sha256, hash_arrays
from recjax.common.param_paths import FlatParams
from recjax.config.validate_model import (
    check_catalogue,
    check_encoder,
    check_phases,
    find_untrained_gaps,
)
from recjax.data.ingest.sources import locate
from recjax.data.splits import load_data
from recjax.data.text.tokenize import tokenize
from recjax.evaluation.evaluator import Evaluator
from recjax.models.encoders.huggingface import WEIGHTS, load_config
from recjax.models.recommender import make_model
from recjax.reporting.data_report import data_report, protocol_warnings
from recjax.reporting.wandb import WandbWriter
from recjax.reporting.writer import Reporter
from recjax.run.workdir import check_disk
from recjax.runtime.compile_cache import keep_compiled, platform_key
from recjax.runtime.compiler import Compiler
from recjax.runtime.mesh import make_mesh
from recjax.runtime.processes import exit_if_peer_lost
from recjax.runtime.provenance import CODE, usable_cores, versions
from recjax.runtime.signals import Signals
from recjax.runtime.timer import Timer
from recjax.training.context import Run
from recjax.training.initial_params import init_params, trace_init
from recjax.training.optimizer import resolve_rules


@contextlib.contextmanager
def open_run(
    config: Any, folder: Path, began: float, planned: Path | None = None
) -> Iterator[tuple[Run, FlatParams]]:
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
    mesh = make_mesh(config.mesh)
    with contextlib.ExitStack() as stack:
        reporter = Reporter(folder, active=jax.process_index() == 0)
        checkpoints = Checkpoints(folder, reporter.log, config.train.keep)
        stack.enter_context(contextlib.closing(checkpoints))
        try:
            r, params = _make_run(config, mesh, checkpoints, reporter, began, planned)
            if changes := checkpoints.check_identity(run_identity(r)):
                reporter.log(
                    f"note: changed since the checkpoint: {changes}; results will not "
                    "be bit-identical"
                )
            reporter.open(resume=checkpoints.resume_metadata)
            stack.enter_context(contextlib.closing(reporter))
            if config.report.wandb and reporter.active and planned is None:
                flat = flat_config(config)
                reporter.mirror = WandbWriter(folder, config.report.wandb, flat)
            reporter.text("config", f"```json\n{config.to_json(indent=2)}\n```")
            yield r, params
        except jax.errors.JaxRuntimeError as e:
            exit_if_peer_lost(e)
            raise


def _make_run(
    config: Any,
    mesh: Mesh,
    checkpoints: Checkpoints,
    reporter: Reporter,
    began: float,
    planned: Path | None,
) -> tuple[Run, FlatParams]:
    say = reporter.log
    data = load_data(config)
    check_catalogue(config, data.num_items)
    encoder_dir, encoder_config, tokens = None, None, None
    if "text" in config.item_tower.sources:
        encoder_dir = locate(config.text.encoder, hub=True)
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
    say(data_report(data, tokens, config))
    for odd in protocol_warnings(data, config.eval):
        say(f"warning: {odd}")
    workdir = planned or reporter.workdir
    where = "" if planned else f", in {workdir / 'config.json'}"
    say(f"\nconfig, resolved{where}:")
    say(compact_config(config))

    model = make_model(config, data.num_items, encoder_config)
    compiler = Compiler(say, mesh)
    timer = Timer(compiler, began)
    traced = trace_init(config, model)
    phases = trained_phases(config)
    paths = list(traced.shapes)
    rules = [resolve_rules(config.optim, phase, paths) for phase in phases]
    check_phases(config, phases, rules)
    if encoder_config is not None:
        for gap in find_untrained_gaps(phases, rules, encoder_config):
            say(f"warning: {gap}")
    check_disk(config, phases, rules, traced.shapes, workdir, say)
    params = init_params(config, traced, encoder_dir, mesh, compiler)
    pretrained = None
    if encoder_dir is not None and config.text.pretrained:
        pretrained = file_sha256(encoder_dir / WEIGHTS)[:12]
    evaluator = Evaluator(config, data, mesh, compiler)
    r = Run(
        config=config,
        data=data,
        titles=titles,
        tokens=tokens,
        catalogue=make_catalogue_builder(
            tokens,
            data.num_items,
            config.text,
            mesh,
            compiler,
            reporter.log,
            reporter.bar,
            shapes_only=planned is not None,
        ),
        model=model,
        mesh=mesh,
        compiler=compiler,
        evaluator=evaluator,
        reporter=reporter,
        checkpoints=checkpoints,
        signals=Signals(),
        rules=rules,
        pretrained=pretrained,
        timer=timer,
    )
    timer.add_since("load", timer.process_start)
    return r, params


def trained_phases(config: Any) -> list[Any]:
    """Phases with epochs."""
    return [phase for phase in config.train.phases if phase.epochs]


def run_identity(r: Run) -> dict[str, dict[str, Any]]:
    """What a save has to be of to be resumed, and what may differ."""
    texts = [] if r.tokens is None else [("ids", r.tokens.ids)]
    items = "\n".join(map(str, r.data.item_ids)).encode()
    users = "\n".join(map(str, r.data.user_ids)).encode()
    must = {
        **flat_config(r.config),
        "data": r.data.fingerprint,
        "pretrained": r.pretrained,
        "catalogue": hash_arrays([("items", np.frombuffer(items, np.uint8)), *texts]),
        "users": hash_arrays([("users", np.frombuffer(users, np.uint8))]),
    }
    may: dict[str, Any] = {"code": CODE, **versions()}
    may |= {"processes": jax.process_count(), "mesh": dict(r.mesh.shape)}
    may |= {"device": jax.devices()[0].device_kind, "processor": platform_key()}
    may["cores"] = len(usable_cores())
    return {
        "required": json.loads(json.dumps(must)),
        "informational": json.loads(json.dumps(may)),
    }
