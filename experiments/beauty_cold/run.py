"""Items that are new at the test: known by text, by id, by both, as one table.

    python -m experiments.beauty_cold.run --data=DIR --out=runs/beauty_cold

DIR holds Amazon Beauty, see `configs/beauty_cold.py`. Finished runs are not repeated.
The table goes to `experiments/beauty_cold/README.md`.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from recjax.compare import read_runs

HERE = Path(__file__).parent
SOURCES = ("id", "text", "id+text")
METRICS = ("hr@10", "ndcg@10")
GROUPS = ("new", "cold", "warm")


def main() -> None:
    """Runs what is missing, one run at a time, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/beauty_cold"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folders = []
    for sources in SOURCES:
        folders.append(args.out / f"{sources}-{args.seed}")
        command = [sys.executable, "-m", "recjax.main", f"--workdir={folders[-1]}"]
        command += [f"--config=configs/beauty_cold.py:{sources}"]
        command += [f"--config.seed={args.seed}", f"--config.data.source={args.data}"]
        subprocess.run(command, check=True)
    runs = read_runs(folders).values()
    text = page(dict(zip(SOURCES, runs, strict=True)), args.seed)
    (HERE if args.seed == 0 else args.out).joinpath("README.md").write_text(text)
    print(text)


def page(runs: dict[str, dict], seed: int) -> str:
    """The table with its protocol."""
    first = next(iter(runs.values()))
    found = {name: next(iter(r["phases"].values())) for name, r in runs.items()}
    groups = found["id"]["buckets"]["item"]["groups"]
    head = ["test", "all"]
    head += [f"{group} ({groups[group]['rows']:,} rows)" for group in GROUPS]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, phase in found.items():
        for metric in METRICS:
            values = [phase["test"][metric]]
            by_group = phase["buckets"]["item"]["groups"]
            values += [by_group[group][metric] for group in GROUPS]
            cells = ["{value:.4f} [{low:.4f}, {high:.4f}]".format(**x) for x in values]
            lines.append(f"| {name}: {metric} | " + " | ".join(cells) + " |")
    for name, values in first["baselines"].items():
        for metric in METRICS:
            shown = "{value:.4f} [{low:.4f}, {high:.4f}]".format(**values[metric])
            lines.append(f"| ({name}): {metric} | {shown} | | | |")
    p = first["protocol"]
    share, drawn_by = p["cold_items"]
    return "\n".join(
        [
            "# Amazon Beauty: items that are new at the test",
            "",
            "    python -m experiments.beauty_cold.run --data=DIR",
            "",
            f"{share:.0%} of the items with training events, drawn by seed {drawn_by}, "
            "are taken out of all histories, and of training and validation as "
            "targets; the test still asks for them. `new` are these (and items that "
            "have no training event anyway), `cold` have 1 to 4 training events, "
            "`warm` more. "
            f"Protocol {first['fingerprint']}: {p['split']}, {p['candidates']} ranked, "
            f"seen items {'' if p['mask_seen'] else 'not '}masked, ties {p['ties']}; "
            f"seed {seed}; 95% bootstrap intervals over users. The epoch is chosen on "
            "validation, which asks for none of the held-out items.",
            "",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
