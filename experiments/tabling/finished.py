"""The finished runs of a sweep, as far as they can stand in one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from experiments.sweeping.load import (
    AGAIN,
    is_finished,
    read_json,
    read_plan,
    read_results,
)
from recjax.common.errors import UserError
from recjax.common.files import sha256
from recjax.evaluation.metrics import rank_metric
from recjax.evaluation.subgroups import ITEM_BINS, bin_masks
from recjax.reporting.compare import check_same_protocol


@dataclass(frozen=True)
class Sweep:
    """The finished runs of a sweep.

    Attributes:
      plan: its `sweep.json`.
      results: of each run, by point and seed.
      ranks: `ranks.parquet`, likewise.
      configs: `config.json`, likewise.
      missing: runs that are not finished.
      reference: the point to compare with, or what was not trained in each run, as
        `(name)`.
      base: run that the baselines are of, of the reference if that is a point.
      mask_R: test rows that count.
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
        """Results of the run that the baselines are of."""
        return self.results[self.base]

    @property
    def config(self) -> dict[str, Any]:
        """Config of the run that the baselines are of."""
        return self.configs[self.base]

    def keeps(self, point: str) -> str:
        """Which state the last phase of a point's runs leaves, `best` or `last`."""
        run = point, self.seeds(point)[0]
        *_, last = self.results[run]["phases"]
        phases = {x["name"]: x for x in self.configs[run]["train"]["phases"]}
        kept: str = phases[last]["keep"]
        return kept

    def seeds(self, point: str) -> list[int]:
        """Those of a point's finished runs."""
        return [seed for name, seed in self.results if name == point]

    def points(self) -> list[str]:
        """Those that have a finished run, in the order of the sweep."""
        return [point for point in self.plan["points"] if self.seeds(point)]

    def values(self, point: str, metric: str) -> np.ndarray:
        """values_R of a metric, means over the seeds of a point."""
        means_R: np.ndarray = np.mean(self.by_seed(point, metric), axis=0)
        return means_R

    def by_seed(self, point: str, metric: str) -> np.ndarray:
        """values_SxR of a metric, for each seed of a point."""
        ranks = [self.ranks[point, seed].rank_R for seed in self.seeds(point)]
        return np.stack([rank_metric(rank_R[self.mask_R], metric) for rank_R in ranks])

    def difference(self, point: str, metric: str) -> tuple[np.ndarray, list[float]]:
        """difference_R from the reference, both means over their seeds.

        Also its mean over the rows for each seed that both have.
        """
        own_SxR = self.by_seed(point, metric)
        if self.reference in self.plan["points"]:
            base_SxR = self.by_seed(self.reference, metric)
            base_seeds = self.seeds(self.reference)
        else:  # of each run its own: some are drawn, or depend on the encoder
            base_seeds, name = self.seeds(point), self.reference[1:-1]
            runs = [self.ranks[point, seed].untrained_ranks for seed in base_seeds]
            base_SxR = np.stack(
                [rank_metric(x[name][self.mask_R], metric) for x in runs]
            )
        base = dict(zip(base_seeds, base_SxR.mean(axis=1), strict=True))
        own = dict(zip(self.seeds(point), own_SxR.mean(axis=1), strict=True))
        each = [float(own[seed] - base[seed]) for seed in own if seed in base]
        return own_SxR.mean(axis=0) - base_SxR.mean(axis=0), each

    def untrained(self, metric: str) -> dict[str, np.ndarray]:
        """values_R of the baselines, and of the encoder before training."""
        found = self.ranks[self.base].untrained_ranks
        return {
            k: rank_metric(rank_R[self.mask_R], metric) for k, rank_R in found.items()
        }

    @property
    def users_R(self) -> np.ndarray:
        """Whose the rows are, the same of every run."""
        own_R: np.ndarray = self.ranks[self.base].users_R[self.mask_R]
        return own_R

    @property
    def rows_per_user(self) -> float:
        """Test rows of a user, in the mean."""
        return len(self.users_R) / len(np.unique(self.users_R))


class Ranks:
    """What the last phase of a run made of the test rows.

    Attributes:
      users_R: whose rows they are.
      events_R: how many training events the target has, where that is known.
      rank_R: by the last phase.
      untrained_ranks: rank_R by the baselines and before training.

    Args:
      folder: the run directory.
      results: of the run.

    Raises:
      UserError: they cannot be read, or are not those that the results are of.
    """

    def __init__(self, folder: Path, results: dict[str, Any]):
        path, phase = folder / "ranks.parquet", f"phase-{list(results['phases'])[-1]}"
        before = {"zero_shot": results["zero_shot"]} if "zero_shot" in results else {}
        untrained = {**results["baselines"], **before}
        try:
            table = pl.read_parquet(path)
            self.users_R = table["user"].to_numpy()
            self.rank_R = table[phase].to_numpy()
            self.untrained_ranks = {x: table[x].to_numpy() for x in untrained}
        except (OSError, pl.exceptions.PolarsError) as e:
            raise UserError(f"{path}: {' '.join(str(e).split())}; {AGAIN}") from None
        self.events_R = table["events"].to_numpy() if "events" in table else None
        for name, metrics in untrained.items():
            check_ranks(path, name, self.untrained_ranks[name], metrics)
        check_ranks(path, phase, self.rank_R, results["test"])


def check_ranks(
    path: Path, name: str, rank_R: np.ndarray, metrics: dict[str, Any]
) -> None:
    """Raises UserError where the metrics are not of these ranks."""
    for metric, found in metrics.items():
        if "@" in metric and not np.isclose(
            rank_metric(rank_R, metric).mean(), found["value"], rtol=0, atol=1e-6
        ):
            raise UserError(
                f"{path}: not the ranks of the results ({name}, {metric}); {AGAIN}"
            )


def rank_digest(rank_R: np.ndarray) -> str:
    """Returns a digest of test ranks, by which two runs are known to be identical.

    Args:
      rank_R: the rank of the target in every test row.

    Returns:
      The first 16 hexadecimal digits of SHA-256 over the ranks as little-endian int32.
    """
    return sha256(rank_R.astype("<i4").tobytes())[:16]


def read_sweep(
    folder: Path,
    reference: str | None,
    partial: bool,
    items: str = "all",
    points: Sequence[str] | None = None,
) -> Sweep:
    """The runs of a sweep.

    Args:
      folder: of the sweep.
      reference: point to compare with, or a baseline, or what was before training,
        as `(name)`, that of each run; None is the first point.
      partial: whether runs may be missing.
      items: rows that count: those whose targets are in this group of
        `recjax.buckets.ITEMS`, or all.
      points: those that stand in the table; None is all.

    Raises:
      UserError: runs that are missing, rows that there are none of, runs of
        different protocols or other test rows.
    """
    plan = read_plan(folder)
    if unknown := [point for point in points or () if point not in plan["points"]]:
        known = ", ".join(plan["points"])
        raise UserError(f"--points: no {unknown[0]!r} among {known}")
    if points:
        kept = {k: x for k, x in plan["points"].items() if k in points}
        plan = {**plan, "points": kept}
    points = list(plan["points"])
    reference = reference or points[0]
    untrained = reference.startswith("(") and reference.endswith(")")
    if reference not in points and not untrained:
        raise UserError(
            f"--reference: no {reference!r} among {', '.join(points)}; a baseline is "
            "asked for as '(name)'"
        )
    there, missing = find_runs(folder, plan)
    if missing and not partial:
        raise UserError(
            f"{folder}: {len(missing)} of {len(missing) + len(there)} runs are not "
            f"finished: {', '.join(missing)}; --partial leaves them out"
        )
    base = next((each for each in there if untrained or each[0] == reference), None)
    if base is None:
        raise UserError(f"{folder}: no run of the reference {reference!r} is finished")
    results = {each: read_results(run) for each, run in there.items()}
    check_same_protocol({str(there[each]): results[each] for each in there})
    ranks = {each: Ranks(there[each], results[each]) for each in there}
    for each in ranks if untrained else ():
        asides = [f"({name})" for name in ranks[each].untrained_ranks]
        if reference not in asides:
            raise UserError(
                f"--reference: {there[each]} has no {reference}, but "
                f"{', '.join(asides)}"
            )
    configs = {each: read_json(run / "config.json") for each, run in there.items()}
    for each, run in there.items():
        both = f"{run} and {there[base]}"
        if not np.array_equal(ranks[each].users_R, ranks[base].users_R):
            raise UserError(f"{both}: test rows of other users")
        if configs[each]["train"]["metric"] != configs[base]["train"]["metric"]:
            raise UserError(f"{both}: the epoch was chosen by different metrics")
    mask_R = choose_rows(ranks[base], items, there[base])
    return Sweep(plan, results, ranks, configs, missing, reference, base, mask_R)


def find_runs(
    folder: Path, plan: dict[str, Any]
) -> tuple[dict[tuple[str, int], Path], list[str]]:
    """Directories of the finished runs by point and seed, and names of the others."""
    there, missing = {}, []
    for point in plan["points"]:
        for seed in plan["seeds"]:
            if is_finished(run := folder / point / str(seed)):
                there[point, seed] = run
            else:
                missing.append(f"{point}/{seed}")
    return there, missing


def choose_rows(ranks: Ranks, items: str, run: Path) -> np.ndarray:
    """mask_R of the rows whose targets are in a group of `recjax.buckets.ITEMS`.

    Raises:
      UserError: there are none, or it is not known.
    """
    if items == "all":
        return np.ones(len(ranks.users_R), bool)
    if ranks.events_R is None:
        raise UserError(f"{run}: its ranks.parquet has no training events of targets")
    mask_R = bin_masks(ranks.events_R, ITEM_BINS)[items]
    if not mask_R.any():
        raise UserError(f"{run}: no test row has a target that is {items}")
    return mask_R
