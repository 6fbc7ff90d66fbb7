"""Trains and evaluates a run: references, phases, results."""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from recjax.common.config import flat_config
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, count_params
from recjax.config.validate import check_config
from recjax.data.dataset import count_events
from recjax.evaluation.results import phase_results
from recjax.reporting.results_page import results_page, summary_text
from recjax.run.phases import complete_phase
from recjax.run.references import References
from recjax.run.save_model import save_model
from recjax.run.setup import open_run, trained_phases
from recjax.run.workdir import lock_workdir, open_workdir, run_directory
from recjax.runtime.provenance import CODE, usable_cores, versions
from recjax.training.context import Run


def run(config: Any, workdir: str) -> dict[str, Any]:
    """Trains and evaluates a recommender; returns the content of `results.json`.

    The same call again resumes from the newest checkpoint, or shows the results of a
    finished run.

    Args:
      config: a locked config.
      workdir: the run directory.

    Raises:
      UserError: a mistake that the user can correct.
      Stopped: a signal came; the same call resumes.
    """
    start_time = time.perf_counter()
    folder = run_directory(workdir)
    # Mistakes in the config are found before anything is read or written.
    check_config(config)
    # Two runs in one directory would overwrite each other's checkpoints.
    with lock_workdir(folder) as lock:
        # A finished run is shown, not repeated.
        if done := open_workdir(config, folder):
            return done
        with (
            open_run(config, folder, start_time, lock=lock) as (run, params),
            run.signals.install_handlers(),
        ):
            return _train(run, params)


@dataclass
class RunProgress:
    """The progress of a run.

    Attributes:
      index: number of completed phases.
      step: global step after them.
      params: all parameters as they enter the next phase.
      trained: paths of the parameters that any phase trained.
      results: results of the references and of the completed phases.
    """

    index: int
    step: int
    params: FlatParams
    trained: set[str]
    results: dict[str, Any]


def _train(run: Run, params: FlatParams) -> dict[str, Any]:
    """Trains all phases that are left, and writes the results."""
    run.reporter.table("rejected", run.data.rejected)
    # The references see the initial parameters, so they are built before any checkpoint
    # is restored; the model's ranking may include their scores (score fusion).
    references = References(run, params)
    references.fit_score_fusion()
    progress = _restore(run, params) or _start(run, params, references)

    # Each phase starts from the parameters that the ones before have kept.
    phases = trained_phases(run.config)
    for index in range(progress.index, len(phases)):
        config = phases[index]
        result = complete_phase(run, index, config, progress.params, progress.step)
        progress.index = index + 1
        progress.step = result.step
        progress.params = progress.params | result.trained
        progress.trained |= set(result.trained)
        progress.results["phases"][config.name] = phase_results(
            run.config,
            run.data,
            run.titles,
            result.valid,
            result.test,
            result.trained,
            result.epochs,
            result.kept_epoch,
        )
        run.reporter.ranks(f"phase-{config.name}", result.test.rank_R)
        del result  # frees its item vectors before the next phase
        # From here on the phase is done, even if the run is interrupted.
        _save(run, progress, progress.trained)
    # The last parameters are the result: the run is not finished without them.
    if not run.checkpoints.flush_phase_checkpoint():
        raise UserError(f"{run.reporter.workdir}: the result could not be saved")
    return _finish(run, progress, references)


def _start(run: Run, params: FlatParams, references: References) -> RunProgress:
    """Evaluates the references, and saves them with the initial parameters."""
    results: dict[str, Any] = {"baselines": references.baselines(), "phases": {}}
    if run.tokens is not None and run.config.eval.zero_shot:
        results["zero_shot"] = references.zero_shot()
    progress = RunProgress(0, 0, params, set(), results)
    _save(run, progress, params)
    # Nothing is lost yet: a directory that cannot hold a checkpoint is found now.
    if not run.checkpoints.flush_phase_checkpoint():
        raise UserError(
            f"{run.reporter.workdir}: the first checkpoint could not be saved"
        )
    return progress


def _restore(run: Run, params: FlatParams) -> RunProgress | None:
    """Restores the parameters that enter the next phase; None without a checkpoint."""
    checkpoints, log = run.checkpoints, run.reporter.log
    checkpoint, newest = checkpoints.phase_checkpoint, checkpoints.newest
    if checkpoint is None or newest is None:
        return None
    params, trained = checkpoints.restore_params(params)
    # The newest checkpoint, which may lie within a phase, has the seconds and the peak
    # memory of the processes that were interrupted.
    for part, seconds in newest.meta["seconds"].items():
        run.timer.add(part, seconds)
    run.peak_before = newest.meta["peak_memory_mib"]
    # Say where the run continues.
    phases, index = trained_phases(run.config), checkpoint.number
    where = f" in phase {phases[index].name}" if index < len(phases) else ""
    log(f"\nresuming{where}: {index} of {len(phases)} phases are done")
    if index < len(phases) and checkpoints.step_checkpoint is None:
        log(f"phase {phases[index].name} has no checkpoint yet: it starts again")
    meta = checkpoint.meta
    return RunProgress(index, meta["step"], params, set(trained), meta["results"])


def _save(run: Run, progress: RunProgress, paths: Collection[str]) -> None:
    """Saves the parameters at some paths, and the results so far."""
    params = {path: x for path, x in progress.params.items() if path in paths}
    meta = {
        "step": progress.step,
        "results": progress.results,
        **run.resume_metadata(),
    }
    with run.signals.defer_signals():
        run.checkpoints.save_params(progress.index, params, meta)


def _finish(run: Run, progress: RunProgress, references: References) -> dict[str, Any]:
    """Shows and writes the results; returns the content of `results.json`."""
    results, reporter = progress.results, run.reporter
    phases = list(results["phases"].values())
    last = phases[-1]
    final = {
        "fingerprint": run.data.fingerprint,
        "pretrained": run.pretrained,
        "encoder_settings": run.encoder_settings,
        "initial": run.initial,
        "protocol": run.data.protocol,
        "seed": run.config.seed,
        "test": last["test"],
        "valid": last["valid"],
        **results,
        "params": {
            "total": count_params(progress.params),
            "trainable": max(phase["trainable"] for phase in phases),
        },
        "seconds": {},  # below, after everything else
        "peak_memory_mib": 0,
        "cores": len(usable_cores()),
        "code": CODE,
        "versions": versions(),
    }
    run.checkpoints.check_lock()
    if run.config.report.save_model:
        start = run.timer.start()
        save_model(run, progress.params, references.fused, final)
        run.timer.add_since("model", start)
    seconds = run.timer.totals()
    final["seconds"] = {part: round(x, 2) for part, x in seconds.items()}
    final["peak_memory_mib"] = run.peak_memory()
    reporter.ranks_table(*_rank_columns(run, results))
    metrics = run.config.report.metrics
    reporter.log("\n" + summary_text(final, metrics))
    text = results_page(final, metrics)
    reporter.write("results.md", text + "\n")
    reporter.text("results", text)
    reporter.log(
        f"\nresults: {reporter.workdir / 'results.md'}\n"
        f"curves:  tensorboard --logdir {reporter.workdir}"
    )
    reporter.hparams({**flat_config(run.config), "fingerprint": run.data.fingerprint})
    # Written last: a run with results.json is finished, and is not resumed.
    content = json.dumps(final, indent=2, allow_nan=False)
    reporter.write("results.json", content + "\n")
    return final


def _rank_columns(
    run: Run, results: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Columns of `ranks.parquet` that describe an example, and the ranked systems."""
    test = run.data.test
    described = {
        "user": run.data.user_ids[test.users_R].tolist(),
        "events": count_events(run.data)[test.targets_R],
    }
    zero_shot = ["zero_shot"] if "zero_shot" in results else []
    phases = [f"phase-{name}" for name in results["phases"]]
    return described, [*results["baselines"], *zero_shot, *phases]
