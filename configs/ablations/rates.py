"""One learning rate for encoder and towers, or one for each.

    python -m experiments.sweep --config=configs/ablations/rates.py --out=runs/rates

Claim: one rate for both collapses (Yuan et al., IDvs.MoRec, SIGIR 2023, figure 5: at
1e-4 HR falls to 0). After the towers they and the encoder's top two layers are trained
together; the state after that is what is shown, be it worse than the one before. The
row of 1e-3 for the towers and 1e-4 for the encoder says whose rate it is that matters,
`untuned` what there was before.
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config import base


def get_config(point: str = "towers_3e-4_encoder_1e-4") -> ConfigDict:
    """One row of the table; `untuned` has the first of the others' two phases."""
    return reference.make(point, sweep, tuned=True)


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
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
