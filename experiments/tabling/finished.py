"""Reads the finished runs of a sweep, and checks that they fit in one table."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from experiments.sweeping.load import (
    RERUN,
    is_finished,
    read_plan,
    read_results,
)
from recjax.common.errors import UserError
from recjax.common.files import read_json, sha256
from recjax.evaluation.metrics import rank_metric
from recjax.evaluation.subgroups import ITEM_BINS, bin_masks
from recjax.reporting.compare import check_same_protocol


@dataclass(frozen=True)
class Sweep:
    """The finished runs of a sweep.

    Attributes:
      plan: content of `sweep.json`.
      results: content of `results.json` by variant and seed.
      ranks: content of `ranks.parquet` by variant and seed.
      configs: content of `config.json` by variant and seed.
      missing: names of the runs that are not finished.
      reference: the variant to compare with, or `(name)` for a baseline of each run.
      base: run whose baselines are shown; a run of the reference if it is a variant.
      mask_R: whether a test example counts, see `--items` of `experiments.collect`.
    """

    plan: dict[str, Any]
    results: dict[tuple[str, int], dict[str, Any]]
    ranks: dict[tuple[str, int], "Ranks"]
    configs: dict[tuple[str, int], dict[str, Any]]
    missing: list[str]
    reference: str
    base: tuple[str, int]
    mask_R: np.ndarray

    @property
    def first(self) -> dict[str, Any]:
        """Results of the run whose baselines are shown."""
        return self.results[self.base]

    @property
    def config(self) -> dict[str, Any]:
        """Config of the run whose baselines are shown."""
        return self.configs[self.base]

    def keeps(self, variant: str) -> str:
        """Returns which epoch the last phase of a variant keeps, `best` or `last`."""
        run = variant, self.seeds(variant)[0]
        *_, last = self.results[run]["phases"]
        phases = {x["name"]: x for x in self.configs[run]["train"]["phases"]}
        kept: str = phases[last]["keep"]
        return kept

    def unimproved(self, variant: str) -> Counter[str]:
        """Counts, by phase, the seeds in which it kept the parameters at its start."""
        runs = [self.results[variant, seed]["phases"] for seed in self.seeds(variant)]
        # Older results lack `kept_epoch`.
        return Counter(
            name
            for phases in runs
            for name, phase in phases.items()
            if not phase.get("kept_epoch", phase["epochs"])
        )

    def seeds(self, variant: str) -> list[int]:
        """Returns the seeds of the finished runs of a variant."""
        return [seed for name, seed in self.results if name == variant]

    def variants(self) -> list[str]:
        """Returns the variants with a finished run, in the order of the sweep."""
        return [variant for variant in self.plan["variants"] if self.seeds(variant)]

    def values(self, variant: str, metric: str) -> np.ndarray:
        """Returns values_R of a metric, averaged over the seeds of a variant."""
        means_R: np.ndarray = np.mean(self.by_seed(variant, metric), axis=0)
        return means_R

    def by_seed(self, variant: str, metric: str) -> np.ndarray:
        """Returns values_SxR of a metric for each seed of a variant."""
        ranks = [self.ranks[variant, seed].rank_R for seed in self.seeds(variant)]
        return np.stack([rank_metric(rank_R[self.mask_R], metric) for rank_R in ranks])

    def difference(self, variant: str, metric: str) -> tuple[np.ndarray, list[float]]:
        """Compares a variant with the reference.

        Returns:
          difference_R: the difference of the means over the seeds of each.
          The mean difference for each seed that both have.
        """
        own_SxR = self.by_seed(variant, metric)
        if self.reference in self.plan["variants"]:
            base_SxR = self.by_seed(self.reference, metric)
            base_seeds = self.seeds(self.reference)
        else:  # each run has its own baselines: some depend on seed or encoder
            base_seeds, name = self.seeds(variant), self.reference[1:-1]
            runs = [self.ranks[variant, seed].untrained_ranks for seed in base_seeds]
            base_SxR = np.stack(
                [rank_metric(x[name][self.mask_R], metric) for x in runs]
            )
        base = dict(zip(base_seeds, base_SxR.mean(axis=1), strict=True))
        own = dict(zip(self.seeds(variant), own_SxR.mean(axis=1), strict=True))
        each = [float(own[seed] - base[seed]) for seed in own if seed in base]
        return own_SxR.mean(axis=0) - base_SxR.mean(axis=0), each

    def untrained(self, metric: str) -> dict[str, np.ndarray]:
        """Returns values_R of the baselines and of the zero-shot encoder."""
        found = self.ranks[self.base].untrained_ranks
        return {
            k: rank_metric(rank_R[self.mask_R], metric) for k, rank_R in found.items()
        }

    @property
    def users_R(self) -> np.ndarray:
        """Users of the test examples, which are the same in every run."""
        own_R: np.ndarray = self.ranks[self.base].users_R[self.mask_R]
        return own_R

    @property
    def examples_per_user(self) -> float:
        """Mean number of test examples per user."""
        return len(self.users_R) / len(np.unique(self.users_R))


class Ranks:
    """Ranks of the test targets in a run; R is the number of test examples.

    Attributes:
      users_R: user of each test example.
      events_R: number of training events of the target; None if it is not recorded.
      rank_R: ranks by the last phase.
      untrained_ranks: rank_R of each baseline and of the zero-shot encoder.

    Args:
      folder: the run directory.
      results: content of its `results.json`.

    Raises:
      UserError: the ranks cannot be read, or do not fit the results.
    """

    def __init__(self, folder: Path, results: dict[str, Any]):
        path, phase = folder / "ranks.parquet", f"phase-{list(results['phases'])[-1]}"
        zero_shot = (
            {"zero_shot": results["zero_shot"]} if "zero_shot" in results else {}
        )
        untrained = {**results["baselines"], **zero_shot}
        try:
            table = pl.read_parquet(io.BytesIO(path.read_bytes()))
            self.users_R = table["user"].to_numpy()
            self.rank_R = table[phase].to_numpy()
            self.untrained_ranks = {x: table[x].to_numpy() for x in untrained}
        except (OSError, pl.exceptions.PolarsError) as e:
            raise UserError(f"{path}: {' '.join(str(e).split())}; {RERUN}") from None
        self.events_R = table["events"].to_numpy() if "events" in table else None
        for name, metrics in untrained.items():
            check_ranks(path, name, self.untrained_ranks[name], metrics)
        check_ranks(path, phase, self.rank_R, results["test"])


def check_ranks(
    path: Path, name: str, rank_R: np.ndarray, metrics: dict[str, Any]
) -> None:
    """Raises UserError if the metrics were not computed from these ranks."""
    for metric, found in metrics.items():
        if "@" in metric and not np.isclose(
            rank_metric(rank_R, metric).mean(), found["value"], rtol=0, atol=1e-6
        ):
            raise UserError(
                f"{path}: does not fit results.json ({name}, {metric}); {RERUN}"
            )


def rank_digest(rank_R: np.ndarray) -> str:
    """Returns a digest of test ranks, which identical runs share.

    Args:
      rank_R: rank of the target in every test example.

    Returns:
      The first 16 hexadecimal digits of SHA-256 over the ranks as little-endian int32.
    """
    return sha256(rank_R.astype("<i4").tobytes())[:16]


def read_sweep(
    folder: Path,
    reference: str | None,
    partial: bool,
    items: str = "all",
    variants: Sequence[str] | None = None,
) -> Sweep:
    """Reads the runs of a sweep.

    Args:
      folder: directory of the sweep.
      reference: variant to compare with, or `(name)` for a baseline or the zero-shot
        encoder of each run; None is the first variant.
      partial: whether runs may be missing.
      items: group of targets that count, a key of `ITEM_BINS`, or `all`.
      variants: variants of the table; None is all.

    Raises:
      UserError: runs are missing or differ in protocol or test examples, or no
        example has such a target.
    """
    plan = read_plan(folder)
    if unknown := [
        variant for variant in variants or () if variant not in plan["variants"]
    ]:
        known = ", ".join(plan["variants"])
        raise UserError(f"--variants: no {unknown[0]!r}; choose from {known}")
    if variants:
        known = plan["variants"].items()
        plan = {**plan, "variants": {k: x for k, x in known if k in variants}}
    variants = list(plan["variants"])
    reference = reference or variants[0]
    untrained = reference.startswith("(") and reference.endswith(")")
    if reference not in variants and not untrained:
        raise UserError(
            f"--reference: no {reference!r}; choose from {', '.join(variants)}, or "
            "write '(NAME)' for a baseline"
        )
    runs, missing = find_runs(folder, plan)
    if missing and not partial:
        raise UserError(
            f"{folder}: {len(missing)} of {len(missing) + len(runs)} runs are not "
            f"finished: {', '.join(missing)}; --partial makes the table without them"
        )
    base = next((run for run in runs if untrained or run[0] == reference), None)
    if base is None:
        raise UserError(f"{folder}: the reference {reference!r} has no finished run")
    results = {run: read_results(path) for run, path in runs.items()}
    check_same_protocol({str(path): results[run] for run, path in runs.items()})
    ranks = {run: Ranks(path, results[run]) for run, path in runs.items()}
    for run in ranks if untrained else ():
        names = [f"({name})" for name in ranks[run].untrained_ranks]
        if reference not in names:
            raise UserError(
                f"--reference: {runs[run]} has no {reference}; choose from "
                f"{', '.join(names)}"
            )
    configs = {run: read_json(path / "config.json") for run, path in runs.items()}
    for run, path in runs.items():
        both = f"{path} and {runs[base]}"
        if not np.array_equal(ranks[run].users_R, ranks[base].users_R):
            raise UserError(f"{both}: the test examples are of different users")
        if configs[run]["train"]["metric"] != configs[base]["train"]["metric"]:
            raise UserError(f"{both}: different metrics chose the epoch")
    mask_R = choose_examples(ranks[base], items, runs[base])
    return Sweep(plan, results, ranks, configs, missing, reference, base, mask_R)


def find_runs(
    folder: Path, plan: dict[str, Any]
) -> tuple[dict[tuple[str, int], Path], list[str]]:
    """Returns the directories of the finished runs, and the names of the others."""
    finished, missing = {}, []
    for variant in plan["variants"]:
        for seed in plan["seeds"]:
            if is_finished(run := folder / variant / str(seed)):
                finished[variant, seed] = run
            else:
                missing.append(f"{variant}/{seed}")
    return finished, missing


def choose_examples(ranks: Ranks, items: str, run: Path) -> np.ndarray:
    """Returns mask_R of the examples whose targets are in a group of `ITEM_BINS`.

    Raises:
      UserError: there are none, or the groups are not recorded.
    """
    if items == "all":
        return np.ones(len(ranks.users_R), bool)
    if ranks.events_R is None:
        raise UserError(
            f"{run}: ranks.parquet has no column with the training events of targets"
        )
    mask_R = bin_masks(ranks.events_R, ITEM_BINS)[items]
    if not mask_R.any():
        raise UserError(f"{run}: no test example has a {items} target")
    return mask_R
