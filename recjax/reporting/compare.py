"""Finished runs side by side, where they were asked the same.

python -m recjax.compare runs/a runs/b
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recjax.common.config import describe_changes
from recjax.common.errors import UserError
from recjax.reporting.markdown import result_table

METRICS = ("hr@10", "ndcg@10", "mrr@10", "auc")


def read_runs(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """`results.json` of runs under one protocol, by run directory.

    Raises:
      UserError: a run that is not finished, or runs of different protocols; says in
        what they differ.
    """
    runs: dict[str, dict[str, Any]] = {}
    for folder in folders:
        path = folder / "results.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path} is not there: no finished run") from None
        except (OSError, ValueError) as e:
            raise UserError(f"{path}: cannot be read ({e})") from None
        for key in ("fingerprint", "protocol", "seed", "test", "baselines"):
            if not isinstance(found, dict) or key not in found:
                raise UserError(f"{path}: no results of a run: no {key!r}")
        runs[str(folder)] = found
    check_same_protocol(runs)
    return runs


def check_same_protocol(runs: Mapping[str, dict[str, Any]]) -> None:
    """Raises UserError where results by name differ in protocol; says in what."""
    first, *others = runs
    for name in others:
        a, b = runs[first], runs[name]
        if a["fingerprint"] != b["fingerprint"]:
            differs = describe_changes(
                a["protocol"],
                b["protocol"],
                names=("in the first", "in the second"),
            )
            raise UserError(
                f"{first} and {name} cannot stand in one table: protocol "
                f"{a['fingerprint']} and {b['fingerprint']} ({differs})"
            )


def comparison(runs: dict[str, dict[str, Any]], metrics: Sequence[str]) -> str:
    """A markdown table of the test, with the baselines of the first run.

    Raises:
      UserError: a metric that a run does not have.
    """
    first = next(iter(runs.values()))
    named = {f"({name})": values for name, values in first["baselines"].items()}
    for name, results in runs.items():
        named[f"{name}, seed {results['seed']}"] = results["test"]
    for name, values in named.items():
        for metric in metrics:
            if metric not in values:
                raise UserError(f"--metrics: {metric!r} is not among those of {name}")
    text = result_table(named, metrics)
    return f"{text}\n\nProtocol {first['fingerprint']}; intervals of 95% over users."


def main() -> None:
    """Prints the table; what cannot be compared is an error, exit code 2."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--metrics", nargs="+", default=METRICS)
    args = parser.parse_args()
    try:
        print(comparison(read_runs(args.runs), args.metrics))
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
