"""Builds everything that a run needs, and its initial parameters."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from recjax.baselines import AUTO
from recjax.baselines.score_fusion import auto_fusion
from recjax.catalogue.arrays import CatalogueBuilder
from recjax.catalogue.frozen_prefix import PrefixEncoder, make_packing
from recjax.checkpointing.checkpoints import Checkpoints
from recjax.common.config import flat_config, without_places
from recjax.common.errors import UserError
from recjax.common.files import hash_arrays
from recjax.common.param_paths import FlatParams
from recjax.common.text import shorten, visible
from recjax.config.changed import changed_keys
from recjax.config.validate_model import (
    check_catalogue,
    check_phases,
    find_untrained_gaps,
)
from recjax.data.dataset import Data
from recjax.data.splits import load_data
from recjax.data.text.packing import Tokens
from recjax.evaluation.evaluator import Evaluator
from recjax.inference.files import MODEL, check_target
from recjax.models.encoders.directory import weights_version
from recjax.models.items.tower import ZERO_SHOT
from recjax.models.recommender import Recommender, make_model
from recjax.reporting.data_report import (
    data_report,
    protocol_warnings,
    row_warnings,
    text_warnings,
)
from recjax.reporting.wandb import WandbWriter
from recjax.reporting.writer import Reporter
from recjax.run.categories import item_categories
from recjax.run.init_from import copy_params, initial_digest
from recjax.run.neighbours import find_neighbours
from recjax.run.text import Text, load_text
from recjax.run.workdir import check_disk
from recjax.run.zero_shot import set_projection
from recjax.runtime.compile_cache import enable_compile_cache, platform_key
from recjax.runtime.compiler import Compiler
from recjax.runtime.locks import DirectoryLock
from recjax.runtime.mesh import make_mesh
from recjax.runtime.processes import exit_if_peer_lost
from recjax.runtime.provenance import CODE, usable_cores, versions
from recjax.runtime.signals import Signals
from recjax.runtime.timer import Timer
from recjax.training.context import Run
from recjax.training.initial_params import init_params, trace_init
from recjax.training.optimizer import PhaseRules, resolve_rules

MAX_TITLE = 80  # characters of a title in the output


@contextlib.contextmanager
def open_run(
    config: Any,
    folder: Path,
    start_time: float,
    planned_workdir: Path | None = None,
    lock: DirectoryLock | None = None,
) -> Iterator[tuple[Run, FlatParams]]:
    """Builds everything that a run needs, and its initial parameters.

    Args:
      config: a checked config.
      folder: the run directory, which exists.
      start_time: start of the process, by `time.perf_counter`.
      planned_workdir: for a dry run, the directory that the real run would write to;
        the frozen prefix is not computed then.
      lock: lock of the run directory, which is checked before each save.

    Raises:
      UserError: data, weights or names that do not fit, too small a disk, or a file of
        the user where the model will be written.
    """
    workdir = planned_workdir or folder
    # The model is written last. What is in its place is found now; a finished run may
    # have a link there, to a version that was promoted.
    if config.report.save_model and not (workdir / "results.json").exists():
        check_target(workdir / MODEL)
    # Before the first array: the options change what JAX computes.
    cache_warning = configure_jax()
    mesh = make_mesh(config.mesh)
    with contextlib.ExitStack() as stack:
        # Only the first process writes.
        reporter = Reporter(folder, active=jax.process_index() == 0)
        if cache_warning:
            reporter.log(f"warning: {cache_warning}")
        checkpoints = Checkpoints(folder, reporter.log, config.train.keep, lock)
        stack.enter_context(contextlib.closing(checkpoints))
        try:
            run, params = make_run(
                config, mesh, checkpoints, reporter, start_time, planned_workdir
            )
            # A checkpoint of another run is refused before anything is overwritten.
            if changes := checkpoints.check_identity(run_identity(run)):
                reporter.log(
                    f"note: changed since the checkpoint: {changes}; results will not "
                    "be bit-identical"
                )
            # Lines that were written after the checkpoint are written again.
            newest = checkpoints.newest
            reporter.open(resume=newest.meta if newest else None)
            stack.enter_context(contextlib.closing(reporter))
            if config.report.wandb and reporter.active and planned_workdir is None:
                flat = flat_config(config)
                reporter.mirror = WandbWriter(folder, config.report.wandb, flat)
            reporter.text("config", f"```json\n{config.to_json(indent=2)}\n```")
            yield run, params
        except jax.errors.JaxRuntimeError as e:
            # Collectives fail with many errors when another process is gone.
            exit_if_peer_lost(e)
            raise


def configure_jax() -> str:
    """Sets JAX's global options and turns on its disk cache of compiled programs.

    Returns:
      A warning if the cache cannot be used, otherwise "".
    """
    # By default the dropout bits alone would take a third of a small step. These bits
    # are the same on every mesh too.
    jax.config.update("jax_threefry_partitionable", False)
    # `train.dtype` alone decides: some devices round the products of float32.
    jax.config.update("jax_default_matmul_precision", "float32")
    return enable_compile_cache()


def make_run(
    config: Any,
    mesh: Mesh,
    checkpoints: Checkpoints,
    reporter: Reporter,
    start_time: float,
    planned_workdir: Path | None,
) -> tuple[Run, FlatParams]:
    """Builds the parts of a run and its initial parameters, see `open_run`."""
    log, workdir = reporter.log, planned_workdir or reporter.workdir
    # Data and texts.
    data = load_data(config)
    check_catalogue(config, data.num_items)
    config = with_fusion(config, data.num_items)
    text = None
    if "text" in config.item_tower.sources:
        text = load_text(config, data.render(config.text.template, "text.template"))
    tokens = text.tokens if text else None
    log_data(config, data, tokens, text.warnings if text else [], log)
    where = "" if planned_workdir else f"; all keys are in {workdir / 'config.json'}"
    log(f"\nconfig, changed from the defaults{where}:\n{changed_keys(config)}")

    # Model, initial parameters, and the rules of all phases.
    compiler = Compiler(log, mesh)
    timer = Timer(compiler, start_time)
    model = make_model(config, data.num_items, text.encoder if text else None)
    initial = initial_digest(config.train.init_from)
    params, rules = build_params(config, model, text, mesh, compiler, workdir, log)
    if config.train.init_from:
        folder = text.folder if text else None
        params = copy_params(config.train.init_from, params, data.item_ids, folder, log)
    catalogue = make_catalogue(
        config, data.num_items, tokens, mesh, compiler, reporter, bool(planned_workdir)
    )
    if config.item_tower.init == ZERO_SHOT and not config.train.init_from:
        params = set_projection(model, params, catalogue, config.item_tower)
    neighbours_NxK = find_neighbours(config.augment, data, model, params, catalogue)
    run = Run(
        config=config,
        data=data,
        titles=item_titles(config, data),
        tokens=tokens,
        catalogue=catalogue,
        neighbours_NxK=neighbours_NxK,
        model=model,
        mesh=mesh,
        compiler=compiler,
        evaluator=Evaluator(config, data, mesh, compiler),
        reporter=reporter,
        checkpoints=checkpoints,
        signals=Signals(),
        rules=rules,
        pretrained=text.pretrained if text else None,
        encoder_settings=text.settings if text else None,
        initial=initial,
        categories_N=item_categories(config, data, model, params, catalogue),
        timer=timer,
    )
    timer.add_since("load", timer.process_start)
    return run, params


def with_fusion(config: Any, num_items: int) -> Any:
    """Returns the config with the names of the baselines that "auto" stands for."""
    if tuple(config.head.fusion) != (AUTO,):
        return config
    config = config.copy_and_resolve_references().unlock()
    config.head.fusion = auto_fusion(config, num_items)
    return config.lock()


def make_catalogue(
    config: Any,
    num_items: int,
    tokens: Tokens | None,
    mesh: Mesh,
    compiler: Compiler,
    reporter: Reporter,
    is_planned: bool,
) -> CatalogueBuilder:
    """Makes the builder of the catalogue, which each phase encodes later.

    Args:
      config: the config of the run.
      num_items: size of the catalogue.
      tokens: the texts of all items; None without a text source.
      mesh: the devices.
      compiler: compiles the encoder.
      reporter: shows the progress.
      is_planned: whether this is a dry run, which encodes nothing.
    """
    prefix_encoder = None
    if tokens is not None:
        prefix_encoder = PrefixEncoder(
            make_packing(tokens, config.text, mesh),
            num_items,
            config.text,
            mesh,
            compiler,
            reporter.log,
            reporter.bar,
        )
    placeholder = (lambda shape: shape) if is_planned else None
    return CatalogueBuilder(num_items, config.text, mesh, prefix_encoder, placeholder)


def build_params(
    config: Any,
    model: Recommender,
    text: Text | None,
    mesh: Mesh,
    compiler: Compiler,
    workdir: Path,
    log: Callable[[str], None],
) -> tuple[FlatParams, list[PhaseRules]]:
    """Builds the initial parameters, and resolves the rules of all phases.

    The rules and the disk are checked before the first phase starts, so that no run
    fails after hours because of a typo or a full disk.
    """
    trace = trace_init(config, model)
    phases, paths = trained_phases(config), list(trace.shapes)
    rules = [resolve_rules(config.optim, phase, paths) for phase in phases]
    check_phases(config, phases, rules)
    if text is not None:
        for gap in find_untrained_gaps(phases, rules, text.encoder):
            log(f"warning: {gap}")
    check_disk(config, phases, rules, trace.shapes, workdir, log)
    folder = text.folder if text else None
    params = init_params(config, trace, folder, mesh, compiler)
    # The digest that results name has to be that of the weights that were read.
    if text and text.version and weights_version(text.folder) != text.version:
        raise UserError(
            f"{text.folder}: the weights changed while they were read; run the same "
            "command again"
        )
    return params, rules


def log_data(
    config: Any,
    data: Data,
    tokens: Tokens | None,
    warnings: Sequence[str],
    log: Callable[[str], None],
) -> None:
    """Logs the data report, and warnings about data, evaluation and encoder."""
    log(f"\ndata: {config.data.source}, {config.data.split}")
    log(data_report(data, tokens, config))
    about_text = text_warnings(tokens) if tokens else []
    about_data = (*row_warnings(data), *protocol_warnings(data, config.eval))
    for warning in (*about_data, *about_text, *warnings):
        log(f"warning: {warning}")


def item_titles(config: Any, data: Data) -> list[str]:
    """Returns the names of the items in the output, by item index."""
    if config.data.item_table:
        titles = data.render(config.text.title, "text.title")
    else:
        titles = [str(item) for item in data.item_ids]
    ids = map(str, data.item_ids)
    named = (title.strip() or name for title, name in zip(titles, ids, strict=True))
    return [shorten(visible(title), MAX_TITLE) for title in named]


def trained_phases(config: Any) -> list[Any]:
    """Returns the phases with epochs."""
    return [phase for phase in config.train.phases if phase.epochs]


def run_identity(run: Run) -> dict[str, dict[str, Any]]:
    """Describes what a checkpoint belongs to, as JSON values.

    `required` has to be the same to resume from it; if `informational` has changed,
    the results are not bit-identical.
    """
    texts = [] if run.tokens is None else [("ids", run.tokens.ids)]
    items = "\n".join(map(str, run.data.item_ids)).encode()
    users = "\n".join(map(str, run.data.user_ids)).encode()
    required = {
        **without_places(flat_config(run.config)),
        "data": run.data.fingerprint,
        "pretrained": run.pretrained,
        "initial": run.initial,
        "encoder": str(run.model.encoder_config),
        "catalogue": hash_arrays([("items", np.frombuffer(items, np.uint8)), *texts]),
        "users": hash_arrays([("users", np.frombuffer(users, np.uint8))]),
    }
    informational = {
        "code": CODE,
        **versions(),
        "processes": jax.process_count(),
        "mesh": dict(run.mesh.shape),
        "device": jax.devices()[0].device_kind,
        "processor": platform_key(),
        "cores": len(usable_cores()),
    }
    # Through JSON, so that tuples compare equal to the lists of a saved identity.
    identity = {"required": required, "informational": informational}
    return json.loads(json.dumps(identity))
