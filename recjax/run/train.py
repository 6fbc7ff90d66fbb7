"""The run, read top to bottom: data, model, baselines, phases, results."""

import json
import time
from pathlib import Path
from typing import Any

from recjax.common.config import flat_config
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, count_params
from recjax.config.validate import check_config
from recjax.data.dataset import count_events
from recjax.evaluation.results import phase_results
from recjax.reporting.results_page import results_text
from recjax.run.references import References
from recjax.run.setup import open_run, trained_phases
from recjax.run.workdir import lock_workdir, open_workdir
from recjax.runtime.provenance import CODE, usable_cores, versions
from recjax.training.context import Run
from recjax.training.loop import train_phase


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
    with lock_workdir(folder):
        if done := open_workdir(config, folder):
            return done
        with (
            open_run(config, folder, began) as (r, params),
            r.signals.install_handlers(),
        ):
            return _run(r, params)


def _run(r: Run, params: FlatParams) -> dict[str, Any]:
    config, data, checkpoints, say = r.config, r.data, r.checkpoints, r.reporter.log
    r.reporter.table("rejected.parquet", data.rejected)
    references = References(r, params)  # before any parameter is restored
    references.fit_score_fusion()

    # Results without training, then after each phase; all of them saved as they come.
    phases = trained_phases(config)
    if checkpoints.phase_checkpoint is None:
        results: dict[str, Any] = {"baselines": references.baselines(), "phases": {}}
        if r.tokens is not None and config.eval.zero_shot:
            results["zero_shot"] = references.zero_shot()
        index, step, trained = 0, 0, set[str]()
        save(r, 0, params, step, results)
    else:
        params, paths = checkpoints.restore_params(params)
        trained = set(paths)
        index, meta = (
            checkpoints.phase_checkpoint.number,
            checkpoints.phase_checkpoint.meta,
        )
        step, results = meta["step"], meta["results"]
        for what, seconds in (checkpoints.resume_metadata or meta)["seconds"].items():
            r.spend(what, seconds)
        # Saves that were made before this was kept have none.
        r.peak_before = (checkpoints.resume_metadata or meta).get("peak_memory_mib", 0)
        where = f" in phase {phases[index].name}" if index < len(phases) else ""
        say(f"\nresuming{where}: {index} of {len(phases)} phases are done")
        if index < len(phases) and checkpoints.step_checkpoint is None:
            say(f"nothing of phase {phases[index].name} was saved yet: it starts anew")
    for i in range(index, len(phases)):
        outcome = train_phase(r, i, phases[i], params, step)
        step, trained = outcome.step, trained | set(outcome.trained)
        params = params | outcome.trained
        results["phases"][phases[i].name] = phase_results(r, outcome)
        r.reporter.ranks(f"phase-{phases[i].name}", outcome.test.rank_R)
        del outcome  # its vectors of the items are not kept through the next phase
        save(r, i + 1, {k: v for k, v in params.items() if k in trained}, step, results)
    if not checkpoints.wait_for_result():
        raise UserError(f"{r.reporter.workdir}: the result could not be saved")
    return finish(r, results, params)


def save(
    r: Run, index: int, trained: FlatParams, step: int, results: dict[str, Any]
) -> None:
    """Saves what enters phase `index`: parameters, results and accounts so far.

    Args:
      r: the run.
      index: of the phase; 0 before any.
      trained: the parameters that phases before it trained; all before any.
      step: global step.
      results: so far.
    """
    meta: dict[str, Any] = {"step": step, **r.reporter.resume_state()}
    meta |= {"results": results, "seconds": r.accounts()}
    meta["peak_memory_mib"] = r.peak_memory()
    with r.signals.defer_signals():
        r.checkpoints.save_params(index, trained, meta)


def finish(r: Run, results: dict[str, Any], params: FlatParams) -> dict[str, Any]:
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
        "params": {"total": count_params(params), "trainable": most},
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
    before = ["zero_shot"] if "zero_shot" in results else []
    trained = [f"phase-{name}" for name in results["phases"]]
    r.reporter.ranks_table(rows, [*results["baselines"], *before, *trained])
    text = results_text(final, r.config.report.metrics)
    r.reporter.log(f"\n{text}")
    r.reporter.write("results.md", text + "\n")
    r.reporter.text("results", text)
    r.reporter.hparams({**flat_config(r.config), "fingerprint": r.data.fingerprint})
    # Last: with these the run is finished, and nothing of it will be made again.
    r.reporter.write(
        "results.json", json.dumps(final, indent=2, allow_nan=False) + "\n"
    )
    return final
