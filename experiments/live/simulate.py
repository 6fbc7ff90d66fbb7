"""Replays the newest events of a data set through the HTTP service, in order of time.

    python -m experiments.live.simulate --config=configs/ml100k.py --out=runs/live

A model is trained on the events before the stream, and then again without held-out
events. Every event of the stream is predicted before it is sent: with the frozen model
and the histories of the past, with the frozen model and the histories up to the event,
and with a model that is fine-tuned after every period, or day, on what the service has
received (`recjax.feedback`) and reloaded if it was promoted. Items are added by their
texts when they appear. Writes `table.csv`, `table.md` and `plot.png`.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl

from experiments.benchmarks.duel import machine
from experiments.benchmarks.service import ServiceProcess
from experiments.live.http_client import HttpClient
from experiments.live.replay_data import Stream, StreamEvent, divide
from experiments.sweeping.load import load_function
from recjax.common.errors import UserError
from recjax.common.files import user_path
from recjax.config import refit
from recjax.evaluation.metrics import bootstrap_means, interval
from recjax.reporting.markdown import interval_cell, markdown_table
from recjax.run.train import run

K = 10
FROZEN, UPDATED, LEARNED = "frozen", "histories updated", "fine-tuned"
CURVES = (FROZEN, UPDATED, LEARNED)
ALL = "all"
DAY = 86400  # seconds
SAMPLES = 1000  # bootstrap samples over users


class Simulation:
    """Two services over the same stream: one model stays, the other one learns.

    Args:
      stream: the stream.
      trained: the finished run on the past.
      folder: a directory for stores and models.
    """

    def __init__(self, stream: Stream, trained: Path, folder: Path):
        self.stream = stream
        self._learned = folder / "learned"
        shutil.copytree(trained, self._learned)
        self._store = folder / "learned.sqlite"
        self._clients: list[HttpClient] = []
        self._services = [ServiceProcess(trained, str(folder / "fixed.sqlite"))]
        try:
            self._services.append(ServiceProcess(self._learned, str(self._store)))
        except SystemExit:
            self.close()
            raise
        self._clients = [HttpClient(x.port) for x in self._services]
        self._frozen: dict[str, list[str]] = {}
        self._added: set[str] = set()
        self.attempts = 0
        self.promotions = 0

    def close(self) -> None:
        """Ends the services."""
        for client in self._clients:
            client.close()
        for service in self._services:
            service.close()

    def predict(self, event: StreamEvent) -> list[int]:
        """Returns the rank of an event's item in the list of each curve; 0 if absent.

        Then the event is sent to both services.
        """
        fixed, learned = self._clients
        if event.user not in self._frozen:
            # Before the first event of the user, so that the history is the past's.
            self._frozen[event.user] = self._list(fixed, event.user)
        lists = [
            self._frozen[event.user],
            self._list(fixed, event.user),
            self._list(learned, event.user),
        ]
        for client in self._clients:
            self._add_item(client, event.item)
            body = {
                "user": event.user,
                "items": [{"id": event.item}],
                "timestamp": event.time,
            }
            client.post("/feedback", body)
        self._added.add(event.item)
        return [x.index(event.item) + 1 if event.item in x else 0 for x in lists]

    def learn(self, options: Sequence[str]) -> str:
        """Fine-tunes on the new events; returns a line about the outcome."""
        program = [sys.executable, "-m", "recjax.feedback"]
        command = [f"--model={self._learned}", f"--events={self._store}", *options]
        done = subprocess.run(
            [*program, *command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UserError(f"feedback: {done.stderr.strip()}")
        if "promoted" in done.stdout:
            self._clients[1].post("/reload", {"model": str(self._learned)})
            self.promotions += 1
        lines = [line for line in done.stdout.splitlines() if "new events" in line]
        self.attempts += "difference" in lines[-1]  # else there were too few
        return lines[-1]

    def _list(self, client: HttpClient, user: str) -> list[str]:
        answer = client.get(f"/recommend/{quote(user, safe='')}?k={K}")
        return [item["id"] for item in answer["items"]]

    def _add_item(self, client: HttpClient, item: str) -> None:
        """Adds an item of the stream that the past does not have, by its text."""
        if item in self._added or client.knows(item):
            return
        body = {
            "id": item,
            "text": self.stream.texts[item] or item,
            "title": self.stream.titles[item] or item,
        }
        client.post("/items", {"items": [body]})


def simulate(args: argparse.Namespace, folder: Path) -> tuple[pl.DataFrame, str]:
    """Trains, replays the stream, and returns the ranks and a description."""
    config = load_function(args.config, "get_config")().unlock()
    if args.source:
        config.data.source = args.source
    if args.daily and config.data.split == "fixed":
        raise UserError("--daily: split files have no times")
    stream = divide(config.lock(), folder / "past", args.fraction)
    # The second run is the model that would be served: it has seen the whole past.
    run(stream.config, str(folder / "held_out"))
    trained = folder / "trained"
    run(refit.get_config(str(folder / "held_out")), str(trained))
    simulation = Simulation(stream, trained, folder)
    rows, start, size = [], time.perf_counter(), len(stream.events)
    before = None
    try:
        for number, event in enumerate(stream.events):
            period = number * args.periods // size + 1
            now = int(event.time // DAY) if args.daily else period
            if before not in (None, now):
                line = simulation.learn(args.feedback)
                seconds = time.perf_counter() - start
                print(f"{number:,} events, {seconds:.0f} s: {line}", flush=True)
            before = now
            rows.append((period, event.user, *simulation.predict(event)))
    finally:
        simulation.close()
    table = pl.DataFrame(rows, schema=["period", "user", *CURVES], orient="row")
    described = (
        f"{len(rows):,} events of {table['user'].n_unique():,} users after "
        f"{args.config}'s past; {args.periods} periods, fine-tuned after every "
        f"{'day' if args.daily else 'period'}; "
        f"{simulation.promotions} promotions of {simulation.attempts} candidates; "
        f"{machine()}"
    )
    return table, described


def metric(rank_R: np.ndarray, name: str) -> np.ndarray:
    """Returns HR@10 or NDCG@10 of ranks, of which 0 is outside of the list."""
    if name == "hr@10":
        return (rank_R > 0).astype(float)
    return np.where(rank_R > 0, 1 / np.log2(np.maximum(rank_R, 1) + 1), 0.0)


def summarise(table: pl.DataFrame) -> pl.DataFrame:
    """Returns means with 95% intervals over users, for each period and for all.

    Args:
      table: the period, the user and the ranks of every event.
    """
    rows = []
    for period in (*sorted(table["period"].unique()), ALL):
        chosen = table
        if period != ALL:
            chosen = table.filter(pl.col("period") == period)
        users = chosen["user"].rank("dense").to_numpy().astype(np.int64) - 1
        for name in ("hr@10", "ndcg@10"):
            values = np.stack(
                [metric(chosen[curve].to_numpy(), name) for curve in CURVES], axis=1
            )
            differences = np.stack(
                [values[:, 1] - values[:, 0], values[:, 2] - values[:, 1]], axis=1
            )
            everything = np.concatenate([values, differences], axis=1)
            means = bootstrap_means(
                everything, users, bootstrap_samples=SAMPLES, seed=0
            )
            labels = (*CURVES, f"{UPDATED} - {FROZEN}", f"{LEARNED} - {UPDATED}")
            for column, label in enumerate(labels):
                found = interval(float(everything[:, column].mean()), means[:, column])
                rows.append((str(period), len(chosen), name, label, *found.values()))
    columns = ["period", "events", "metric", "curve", "value", "low", "high"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def page(summary: pl.DataFrame, described: str) -> str:
    """Returns a Markdown table of all curves."""
    labels = summary["curve"].unique(maintain_order=True).to_list()
    body = []
    by = ["period", "metric"]
    for (period, name), rows in summary.group_by(by, maintain_order=True):
        by_curve = {row["curve"]: row for row in rows.iter_rows(named=True)}
        cells = [interval_cell(by_curve[label]) for label in labels]
        body.append([str(period), f"{rows['events'][0]:,}", str(name), *cells])
    head = ["period", "events", "metric", *labels]
    return f"{described}.\n\n{markdown_table(head, body)}\n"


def plot(summary: pl.DataFrame, path: Path, title: str) -> None:
    """Draws both metrics of the three curves over the periods of the stream."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for panel, name in zip(panels, ("hr@10", "ndcg@10"), strict=True):
        for curve, color in zip(CURVES, ("#555555", "#0072B2", "#D55E00"), strict=True):
            rows = summary.filter(
                (pl.col("metric") == name)
                & (pl.col("curve") == curve)
                & (pl.col("period") != ALL)
            )
            x = np.arange(1, len(rows) + 1)
            panel.plot(x, rows["value"], marker="o", color=color, label=curve)
            panel.fill_between(x, rows["low"], rows["high"], color=color, alpha=0.15)
        panel.set_xlabel("period of the stream, in order of time")
        panel.set_ylabel(f"{name.upper()}, 95% interval over users")
        panel.set_ylim(bottom=0)
        panel.xaxis.get_major_locator().set_params(integer=True)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(lines))
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def check_options(args: argparse.Namespace) -> None:
    """Checks the numbers on the command line.

    Raises:
      UserError: one is out of range.
    """
    if not 0 < args.fraction < 1:
        raise UserError(f"--fraction: {args.fraction} is not between 0 and 1")
    if args.periods < 1:
        raise UserError(f"--periods: {args.periods} is not at least 1")


def main() -> None:
    """Simulates, and writes table and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="FILE.py with get_config()")
    parser.add_argument(
        "--source", help="directory of the data, instead of the config's"
    )
    parser.add_argument("--out", required=True, help="directory for table and plot")
    parser.add_argument(
        "--fraction", type=float, default=0.2, help="newest fraction to replay (0.2)"
    )
    parser.add_argument(
        "--periods", type=int, default=10, help="equal numbers of events (10)"
    )
    parser.add_argument(
        "--daily",
        action="store_true",
        help="fine-tune after every day with events, not after every period",
    )
    parser.add_argument(
        "feedback", nargs="*", help="after --: options of recjax.feedback"
    )
    args = parser.parse_args()
    try:
        out = user_path(args.out, "--out")
        check_options(args)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as tmp:
            table, described = simulate(args, Path(tmp))
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    summary = summarise(table)
    summary.write_csv(out / "table.csv")
    (out / "table.md").write_text(page(summary, described), encoding="utf-8")
    plot(summary, out / "plot.png", out.name)
    print(page(summary, described))


if __name__ == "__main__":
    main()
