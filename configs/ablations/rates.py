"""One learning rate for encoder and towers, or one for each.

    python -m experiments.sweep --config=configs/ablations/rates.py --out=runs/rates

Claim: one rate for both collapses (Yuan et al., IDvs.MoRec, SIGIR 2023, figure 5: at
1e-4 HR falls to 0). Towers and the encoder's top two layers are trained together from
the start, in one phase. Texts are titles alone, histories short and negatives those of
the batch, so that a step encodes few items.
"""

from ml_collections import ConfigDict

from configs import base
from configs.ablations import reference

EPOCHS, TOP = 10, 2
SHORT = {
    "data__history_length": 10,
    "data__windows": "last",
    "loss__negatives": "in_batch",
    "train__batch_size": 64,
}


def get_config(point: str = "towers_1e-3_encoder_5e-5") -> ConfigDict:
    """One row of the table."""
    return reference.make(point, sweep, titles=True, **SHORT)


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    for towers, encoder in (
        ("1e-3", "5e-5"),
        ("1e-4", "1e-4"),
        ("1e-3", "1e-3"),
        ("5e-5", "5e-5"),
    ):
        share = float(encoder) / float(towers)
        phase = base.phase(
            "together",
            epochs=EPOCHS,
            lr=float(towers),
            ema=0.9,
            patience=0,
            lr_mults=base.freeze(TOP, layers=reference.LAYERS, encoder=share),
        )
        add(f"towers_{towers}_encoder_{encoder}", {"train.phases": (phase,)})
