"""Measures the mean cosine similarity of two items' text vectors.

    python -m experiments.vectors.cosines --config=configs/ablations/vectors.py

The encoder is not trained. The cosine is printed without and with whitening over the
catalogue.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.sweeping.load import resolve
from recjax.catalogue.whitening import whiten
from recjax.common.errors import UserError
from recjax.common.vectors import unit_vectors
from recjax.config.validate import check_config
from recjax.run.references import References
from recjax.run.setup import open_run


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the two means; exit code 2 if the config has no texts."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", required=True)
    args, changes = parser.parse_known_args(argv)
    try:
        vectors_NxE = encode([f"--config={args.config}", *changes])
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    num_items, width = vectors_NxE.shape
    plain, white = mean_cosine(vectors_NxE), mean_cosine(whiten(vectors_NxE))
    print(
        f"{num_items:,} items, {width} dimensions: mean cosine of two items "
        f"{plain:.2f}, whitened {white:.2f}"
    )


def encode(flags: list[str]) -> np.ndarray:
    """Returns vectors_NxE of a config's items, before any training.

    Raises:
      UserError: the config is invalid, or has no texts.
    """
    config = resolve(flags)
    check_config(config)
    if "text" not in config.item_tower.sources:
        raise UserError(
            "item_tower.sources: add 'text'; items without text have no text vectors"
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(config, Path(folder), time.perf_counter()) as (run, params),
    ):
        return References(run, params).vectors_NxE


def mean_cosine(vectors_NxE: np.ndarray) -> float:
    """Returns the mean cosine over all pairs of different items.

    The squared norm of the sum of unit vectors is the sum over all pairs, so that no
    N x N matrix is needed.
    """
    total_E = np.sum(unit_vectors(vectors_NxE), axis=0, dtype=np.float64)
    num_rows = len(vectors_NxE)
    return float((np.sum(total_E**2) - num_rows) / (num_rows * (num_rows - 1)))


if __name__ == "__main__":
    main()
