"""MovieLens 100K: every user tower, loss and baseline, one seed, as one table.

    python -m experiments.ml100k.parts --out=runs/parts

Finished runs are not repeated. The table goes to `experiments/ml100k/parts.md`; bpr_mf
needs `pip install -e '.[baselines]'`.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from configs.ml100k_parts import PARTS
from recjax.compare import read_runs

HERE = Path(__file__).parent
METRICS = ("hr@10", "ndcg@10", "mrr@10", "auc")


def main() -> None:
    """Runs what is missing, one run at a time, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/parts"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folders = [run(args.out, part, args.seed) for part in args.parts]
    runs = read_runs(folders).values()
    text = page(dict(zip(args.parts, runs, strict=True)), args.seed)
    whole = args.parts == list(PARTS) and args.seed == 0
    path = HERE / "parts.md" if whole else args.out / "parts.md"
    path.write_text(text)
    print(text)


def run(out: Path, part: str, seed: int) -> Path:
    """Directory of one run, trained now or before."""
    workdir = out / f"{part}-{seed}"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "recjax.main",
            f"--config=configs/ml100k_parts.py:{part}",
            f"--config.seed={seed}",
            f"--workdir={workdir}",
        ],
        check=True,
    )
    return workdir


def cells(name: str, metrics: dict, rest: list[str]) -> str:
    """A row: metrics with their 95% intervals."""
    shown = [
        "{value:.4f} [{low:.4f}, {high:.4f}]".format(**metrics[m]) for m in METRICS
    ]
    return f"| {name} | " + " | ".join([*shown, *rest]) + " |"


def page(results: dict[str, dict], seed: int) -> str:
    """The table with its protocol."""
    head = ["test", *METRICS, "valid ndcg@10", "epochs", "seconds an epoch"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    first = next(iter(results.values()))
    for name, metrics in first["baselines"].items():
        lines.append(cells(f"({name})", metrics, ["", "", ""]))
    for part, r in results.items():
        (phase,) = r["phases"].values()
        valid = f"{r['valid']['ndcg@10']['value']:.4f}"
        each = f"{r['seconds']['train'] / phase['epochs']:.2f}"
        lines.append(cells(part, r["test"], [valid, str(phase["epochs"]), each]))
    p = first["protocol"]
    seen = "masked" if p["mask_seen"] else "not masked"
    return "\n".join(
        [
            "# MovieLens 100K: towers, losses and baselines",
            "",
            "    python -m experiments.ml100k.parts",
            "",
            f"Test with 95% bootstrap intervals over users, one seed ({seed}). "
            f"Protocol {first['fingerprint']}: {p['split']}, {p['candidates']} ranked, "
            f"seen items {seen}, ties {p['ties']}, history of {p['history']}. Items "
            "are known by id. `transformer` is a causal transformer with full softmax; "
            "every other row changes what `configs/ml100k_parts.py` says, and nothing "
            "was tuned for it. The epoch is chosen on validation NDCG@10; seconds are "
            "of training and validation, without compilation.",
            "",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
