"""MovieLens 100K by id, text and both, three seeds each, as one table.

    python experiments/ml100k/run.py --out=runs/ml100k

Finished runs are not repeated. The whole table goes to
`experiments/ml100k/README.md`, a part of it to the directory of the runs.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

METRICS = ("hr@10", "ndcg@10", "mrr@10", "auc")
SOURCES, SEEDS = ["id", "text", "id+text"], [0, 1, 2]
HERE = Path(__file__).parent


def main() -> None:
    """Runs what is missing, one run at a time, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/ml100k"))
    parser.add_argument("--sources", nargs="+", default=SOURCES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    args = parser.parse_args()
    rows: dict[str, dict] = {}
    kinds: set[str] = set()
    for sources in args.sources:
        results = [run(args.out, sources, seed) for seed in args.seeds]
        last = list(results[0]["phases"])[-1]
        if not rows:
            for name in results[0]["baselines"]:
                rows[f"({name})"] = columns([r["baselines"][name] for r in results])
        rows[sources] = {
            **columns([r["test"] for r in results]),
            "valid ndcg@10": [r["valid"]["ndcg@10"]["value"] for r in results],
            "epochs": [r["phases"][last]["epochs"] for r in results],
        }
        kinds |= {r["fingerprint"] for r in results}
    if len(kinds) > 1:
        sys.exit(f"error: runs of different protocols: {', '.join(sorted(kinds))}")
    text = page(rows, results[0], args.seeds)
    whole = args.sources == SOURCES and args.seeds == SEEDS
    (HERE if whole else args.out).joinpath("README.md").write_text(text)
    print(text)


def run(out: Path, sources: str, seed: int) -> dict:
    """Results of one run, trained now or before."""
    workdir = out / f"{sources}-{seed}"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "recjax.main",
            f"--config=configs/ml100k.py:{sources}",
            f"--config.seed={seed}",
            f"--workdir={workdir}",
        ],
        check=True,
    )
    return json.loads((workdir / "results.json").read_text())


def columns(results: list[dict]) -> dict[str, list[float]]:
    """Each metric's values by seed."""
    return {m: [r[m]["value"] for r in results] for m in METRICS}


def page(rows: dict, result: dict, seeds: list[int]) -> str:
    """The README of this folder."""
    names = [*METRICS, "valid ndcg@10", "epochs"]
    lines = [
        "| items known by | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for sources, values in rows.items():
        cells = []
        for name in names:
            x = values.get(name)
            if x is None:
                cells.append("")
                continue
            digits = 1 if name == "epochs" else 4
            spread = np.std(x, ddof=1) if len(x) > 1 else 0.0
            cells.append(f"{np.mean(x):.{digits}f} ± {spread:.{digits}f}")
        lines.append(f"| {sources} | " + " | ".join(cells) + " |")
    each = [
        f"- {sources}: "
        + ", ".join(
            f"{hr:.4f} / {ndcg:.4f}"
            for hr, ndcg in zip(values["hr@10"], values["ndcg@10"], strict=True)
        )
        for sources, values in rows.items()
        if "epochs" in values
    ]
    p = result["protocol"]
    seen = "masked" if p["mask_seen"] else "not masked"
    shown = ", ".join(map(str, seeds))
    return "\n".join(
        [
            "# MovieLens 100K: what an item is known by",
            "",
            "    python experiments/ml100k/run.py",
            "",
            f"Test, mean and standard deviation over seeds {shown}. Protocol "
            f"{result['fingerprint']}: {p['split']}, {p['candidates']} ranked, seen "
            f"items {seen}, ties {p['ties']}, history of "
            f"{p['history']}. The epoch is chosen on validation NDCG@10.",
            "",
            *lines,
            "",
            "HR@10 / NDCG@10 of each seed:",
            "",
            *each,
            "",
        ]
    )


if __name__ == "__main__":
    main()
