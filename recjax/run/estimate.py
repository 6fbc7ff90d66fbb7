"""Estimates the seconds and the memory of a run by measuring parts of it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from recjax.baselines import TEXT
from recjax.baselines.score_fusion import ScoreFusion
from recjax.catalogue.prefix_cache import GIB
from recjax.common.param_paths import FlatParams, tree_bytes
from recjax.data.dataset import Examples
from recjax.evaluation.results import phase_results, reference_results
from recjax.models.items.text_source import block_of, count_frozen_blocks
from recjax.models.items.tower import ZERO_SHOT
from recjax.reporting.writer import Reporter
from recjax.run.references import fit_baseline
from recjax.runtime.host_memory import peak_memory
from recjax.training.callbacks import RunCallbacks
from recjax.training.context import Run
from recjax.training.make_phase import make_phase

SAMPLED_BATCHES = 8  # of the examples of a split that are ranked
MAX_STEPS = 30  # measured steps per phase
STEP_SECONDS = 5.0  # after them, no further step is measured
RANDOM_ROWS = 4096  # number of different rows in a placeholder


@dataclass
class Estimate:
    """The cost of a run that trains every phase for all its epochs.

    Attributes:
      seconds: by part, as in `results.json`.
      epochs: seconds of an epoch with its validation, by name of the phase.
      peak_mib: largest memory of the process on the host.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    epochs: dict[str, float] = field(default_factory=dict)
    peak_mib: int = 0

    def add(self, part: str, seconds: float) -> None:
        """Adds seconds to a part."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds


def estimate_run(run: Run, phases: Sequence[Any], params: FlatParams) -> Estimate:
    """Measures some steps of every phase, and parts of everything else.

    Nothing is written, and `params` stay as they are. Instead of the output of frozen
    encoder blocks, steps read random numbers of the same shape.

    Args:
      run: a run that was built for a dry run.
      phases: the phases with epochs.
      params: all parameters before training.
    """
    estimate = Estimate()
    estimate.add("load", run.timer.totals()["load"])
    batch = SAMPLED_BATCHES * run.config.eval.batch_size
    max_bytes = run.config.text.cache_ram_gib * GIB
    sampled = replace(
        run,
        data=replace(
            run.data,
            valid=sample(run.data.valid, batch),
            test=sample(run.data.test, batch),
        ),
        catalogue=replace(
            run.catalogue, placeholder=partial(placeholder, max_bytes=max_bytes)
        ),
        reporter=Reporter(run.reporter.workdir, active=False),
    )
    _add_prefixes(estimate, run, params)
    _add_references(estimate, run, sampled)
    for index, config in enumerate(phases):
        _add_phase(estimate, run, sampled, index, config, params)
    estimate.seconds["compile"] = run.compiler.seconds
    estimate.peak_mib = peak_memory()
    return estimate


def describe(estimate: Estimate) -> str:
    """Describes an estimate in one line."""
    epochs = [
        f"an epoch of {name} takes {format_duration(seconds)}"
        for name, seconds in estimate.epochs.items()
    ]
    parts = [
        f"{part} {format_duration(seconds)}"
        for part, seconds in estimate.seconds.items()
        if seconds >= 1
    ]
    total = format_duration(sum(estimate.seconds.values()))
    listed = f" ({', '.join(parts)})" if parts else ""
    return (
        f"estimate: {total} if no phase stops early{listed}; "
        f"{', '.join(epochs)}; peak host memory {estimate.peak_mib:,} MiB"
    )


def format_duration(seconds: float) -> str:
    """Formats seconds as seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def sample(examples: Examples, size: int) -> Examples:
    """Returns at most `size` examples, evenly spaced."""
    number = min(size, len(examples))
    return examples.take(np.linspace(0, len(examples) - 1, number).astype(np.int64))


def placeholder(shape: jax.ShapeDtypeStruct, max_bytes: float) -> np.ndarray:
    """Returns random numbers of a shape (rows, E).

    Above `max_bytes`, where a run would map a file, all rows are the same one.
    """
    rows, width = shape.shape
    block = np.random.default_rng(0).standard_normal((min(rows, RANDOM_ROWS), width))
    if tree_bytes(shape) > max_bytes:
        return np.broadcast_to(block[0].astype(shape.dtype), shape.shape)
    return np.resize(block.astype(shape.dtype), shape.shape)


def now(run: Run) -> float:
    """Returns a clock in seconds that stops while a function is compiled."""
    clock, compiled = run.timer.start()
    return clock - compiled


def measure(run: Run, function: Callable[[], Any]) -> float:
    """Seconds that a function takes at its second call, without compiling."""
    jax.block_until_ready(function())
    start = now(run)
    jax.block_until_ready(function())
    return now(run) - start


def _add_prefixes(estimate: Estimate, run: Run, params: FlatParams) -> None:
    """Adds the encoding of the catalogue, unless the cache has the result."""
    encoder = run.catalogue.prefix_encoder
    if encoder is None:
        return
    assert run.model.encoder_config is not None
    needed = []
    config = run.config
    starts_there = config.item_tower.init == ZERO_SHOT and not config.train.init_from
    reads_texts = config.eval.zero_shot or TEXT in _baselines(run)
    if reads_texts or starts_there or config.augment.substitute:
        model = run.model.without_learned_pooling()
        needed.append((model, run.model.encoder_config.num_blocks, True))
    trained = set[int | None]()
    for rules in run.rules:
        paths = rules.trained_paths()
        blocks = count_frozen_blocks(run.model.encoder_config, paths)
        if blocks:
            # After training the same blocks give another output.
            is_initial = trained.isdisjoint(range(blocks))
            model = run.model.with_text(frozen_blocks=blocks)
            needed.append((model, blocks, is_initial))
        trained |= {block_of(path, run.model.encoder_config) for path in paths}
    keys = set[str]()
    for model, blocks, is_initial in needed:
        key = encoder.cache_key(model, params, blocks)
        if not is_initial or not (key in keys or encoder.is_cached(key)):
            encode_part, parts = encoder.sample(model, params, blocks)
            estimate.add("prefix", parts * measure(run, encode_part))
        keys.add(key)


def _add_references(estimate: Estimate, run: Run, sampled: Run) -> None:
    """Fits the baselines, and adds their evaluation and that of the encoder."""
    ratio = len(run.data.test) / len(sampled.data.test)
    test, encoder = sampled.data.test, run.catalogue.prefix_encoder
    vectors_NxE = None
    if encoder is not None:
        assert run.model.encoder_config is not None
        blocks = run.model.encoder_config.num_blocks
        vectors_NxE = placeholder(encoder.shape(run.model, blocks), math.inf)
    fitted = {}
    for name in _baselines(run):
        start = now(run)
        fitted[name] = baseline = fit_baseline(run, name, vectors_NxE)
        estimate.add("baselines", now(run) - start)
        if name not in run.config.eval.baselines:
            continue

        def evaluate_baseline(baseline: Any = baseline) -> Any:
            found = run.evaluator.by_baseline(baseline, test)
            return reference_results(run.config, sampled.data, found, found)

        # For validation and test.
        estimate.add("baselines", 2 * ratio * measure(run, evaluate_baseline))
    if fused := [(name, fitted[name]) for name in run.config.head.fusion]:
        fusion = ScoreFusion(fused, run.config.head.fusion_floor)
        run.evaluator.set_score_fusion(fusion)
    if vectors_NxE is not None and run.config.eval.zero_shot:
        similarity = fit_baseline(run, TEXT, vectors_NxE)

        def evaluate_encoder() -> Any:
            found = run.evaluator.by_baseline(similarity, test)
            return reference_results(run.config, sampled.data, found, found)

        estimate.add("zero_shot", 2 * ratio * measure(run, evaluate_encoder))


def _add_phase(
    estimate: Estimate,
    run: Run,
    sampled: Run,
    index: int,
    config: Any,
    params: FlatParams,
) -> None:
    """Adds a phase: its steps, its validations and its test."""
    phase, state = make_phase(sampled, index, config, params, 0)
    callbacks = RunCallbacks(sampled, phase)
    loop = callbacks.start(state)

    # A validation encodes the catalogue once, and then ranks the examples.
    encode = measure(
        run, lambda: phase.scorer.encode_catalogue(phase.nested(loop.state.result))
    )

    def validate() -> Any:
        return callbacks.validate(loop)

    ratio = len(run.data.valid) / len(sampled.data.valid)
    validation = encode + ratio * max(measure(run, validate) - encode, 0)

    # Batches are made by a thread of their own, as in training.
    steps = phase.batches.steps_per_epoch
    stale: dict[str, Any] = {}
    finished = [now(run)]
    while len(finished) <= MAX_STEPS and finished[-1] - finished[0] < STEP_SECONDS:
        if phase.is_refresh_step(len(finished) - 1):
            stale = jax.block_until_ready(phase.encode_stale(loop.state))
            finished[-1] = now(run)
        loop.state, metrics = phase.run_step(loop.state, stale, next(loop.batches))
        jax.block_until_ready(metrics)
        finished.append(now(run))
    # The median leaves out steps that are slower only because they are the first.
    step = float(np.median(np.diff(finished)))
    if phase.batches.negatives.is_stale:
        step += encode / min(phase.refresh_steps, steps)
    estimate.epochs[config.name] = steps * step + validation
    estimate.add("train", config.epochs * estimate.epochs[config.name] + validation)

    # The test ranks both splits again, and computes all metrics.
    kept = phase.nested(loop.state.result)

    def test() -> Any:
        valid, found = run.evaluator.by_model(
            phase.scorer, kept, sampled.data.valid, sampled.data.test
        )
        return phase_results(
            run.config,
            sampled.data,
            run.titles,
            valid,
            found,
            loop.state.result,
            config.epochs,
            config.epochs,
        )

    ratio = (len(run.data.valid) + len(run.data.test)) / (
        len(sampled.data.valid) + len(sampled.data.test)
    )
    estimate.add("test", encode + ratio * max(measure(run, test) - encode, 0))


def _baselines(run: Run) -> Iterable[str]:
    """Names of all baselines that are fitted, each once."""
    return dict.fromkeys([*run.config.eval.baselines, *run.config.head.fusion])
