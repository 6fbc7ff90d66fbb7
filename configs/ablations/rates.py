"""The same learning rate for encoder and towers, or one for each.

    python -m experiments.sweep --config=configs/ablations/rates.py --out=runs/rates

Claim: the same rate for both collapses (Yuan et al., IDvs.MoRec, SIGIR 2023, figure 5:
at 1e-4 HR falls to 0). After the towers, a second phase trains them together with the
encoder's top two layers; the table shows the state after it, even if it is worse than
the one before. The row with 1e-3 for the towers and 1e-4 for the encoder shows which
of the two rates matters, and `untuned` is the state before the second phase.

Five minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: 1e-3 for both .0302, all others .069 to .071 (experiments/rates).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config import base
from recjax.config.variants import Add


def get_config(variant: str = "towers_3e-4_encoder_1e-4") -> ConfigDict:
    """Returns the config of a variant; `untuned` has only the first phase."""
    return reference.make(variant, sweep, tuned=True)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    for towers, encoder in (
        ("3e-4", "1e-4"),
        ("1e-4", "1e-4"),
        ("1e-3", "1e-3"),
        ("1e-3", "1e-4"),
    ):
        share = float(encoder) / float(towers)
        rules = base.freeze(reference.TOP, layers=reference.LAYERS, encoder=share)
        tuning = {**reference.TUNING, "lr": float(towers), "lr_mults": rules}
        phases = (
            base.phase("towers", **reference.BASIS),
            base.phase(reference.TUNE, **tuning),
        )
        add(f"towers_{towers}_encoder_{encoder}", {"train.phases": phases})
    add("untuned", {"train.phases": (base.phase("towers", **reference.BASIS),)})
