"""How alike an encoder's vectors of a catalogue are: the mean cosine of two items.

    python -m experiments.vectors.cosines --config=configs/ablations/vectors.py

The encoder is as it came; its vectors as they are, and whitened over the catalogue.
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
    """Prints the two means; exit code 2 at a config without texts."""
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
        f"{num_items:,} items, {width} numbers each: mean cosine of two items "
        f"{plain:.2f}, whitened {white:.2f}"
    )


def encode(flags: list[str]) -> np.ndarray:
    """vectors_NxE of a config's items, before any training.

    Raises:
      UserError: the config cannot run, or has no texts.
    """
    config = resolve(flags)
    check_config(config)
    if "text" not in config.item_tower.sources:
        raise UserError("item_tower.sources: without 'text' there is no vector")
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(config, Path(folder), time.perf_counter()) as (r, params),
    ):
        return References(r, params).texts_NxE


def mean_cosine(vectors_NxE: np.ndarray) -> float:
    """Over all pairs of different rows, of which no N x N is held."""
    total_E = np.sum(unit_vectors(vectors_NxE), axis=0, dtype=np.float64)
    num_rows = len(vectors_NxE)
    return float((np.sum(total_E**2) - num_rows) / (num_rows * (num_rows - 1)))


if __name__ == "__main__":
    main()
