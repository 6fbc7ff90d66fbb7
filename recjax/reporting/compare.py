"""Compares finished runs of one evaluation protocol in a table.

python -m recjax.reporting.compare runs/a runs/b
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recjax.common.config import describe_changes
from recjax.common.errors import UserError
from recjax.common.files import read_json
from recjax.reporting.markdown import result_table
from recjax.reporting.results_file import check_results_version, is_interval
from recjax.runtime.console import keep_console

METRICS = ("hr@10", "ndcg@10", "mrr@10", "auc")
RESULT_SHAPES = {
    "fingerprint": str,
    "protocol": dict,
    "seed": int,
    "test": dict,
    "baselines": dict,
}


def read_runs(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Reads `results.json` of runs with one protocol, by run directory.

    Raises UserError if a run is not finished or not readable, or if protocols differ.
    """
    runs: dict[str, dict[str, Any]] = {}
    for folder in folders:
        path = folder / "results.json"
        if not path.exists():
            raise UserError(f"{path} does not exist: not a finished run")
        results = read_json(path)
        check_results_version(path, results)
        for key, shape in RESULT_SHAPES.items():
            if not isinstance(results.get(key), shape):
                raise UserError(
                    f"{path}: not the results of a run: {key!r} is missing or damaged"
                )
        if not all(isinstance(x, dict) for x in results["baselines"].values()):
            raise UserError(f"{path}: not the results of a run: 'baselines' is damaged")
        runs[str(folder)] = results
    check_same_protocol(runs)
    return runs


def check_same_protocol(runs: Mapping[str, dict[str, Any]]) -> None:
    """Raises UserError if named results differ in protocol; names the differences."""
    (first, old), *others = runs.items()
    names = ("in the first", "in the second")
    for name, new in others:
        if old["fingerprint"] != new["fingerprint"]:
            changes = describe_changes(old["protocol"], new["protocol"], names=names)
            raise UserError(
                f"{first} and {name} cannot be compared: protocols "
                f"{old['fingerprint']} and {new['fingerprint']} differ ({changes})"
            )


def comparison(runs: dict[str, dict[str, Any]], metrics: Sequence[str]) -> str:
    """Returns a table of test metrics, with the baselines of the first run."""
    first = next(iter(runs.values()))
    named = {f"({name})": values for name, values in first["baselines"].items()}
    for name, results in runs.items():
        named[f"{name}, seed {results['seed']}"] = results["test"]
    for name, values in named.items():
        for metric in metrics:
            if not is_interval(values.get(metric)):
                found = ", ".join(x for x in values if is_interval(values[x]))
                raise UserError(
                    f"--metrics: {name} has no metric {metric!r}; it has {found}"
                )
    text = result_table(named, metrics)
    return f"{text}\n\nProtocol {first['fingerprint']}; 95% intervals over users."


def main() -> None:
    """Prints the table; exits with code 2 if the runs cannot be compared."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--metrics", nargs="+", default=METRICS)
    args = parser.parse_args()
    try:
        print(comparison(read_runs(args.runs), args.metrics))
        sys.stdout.flush()
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except OSError as e:  # the table is the result: nobody has received it
        print(f"error: {e.filename}: {e.strerror}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    keep_console(is_result=True)
    main()
