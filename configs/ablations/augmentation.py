"""Training windows and texts that are changed at random.

    python -m experiments.sweep --config=configs/ablations/augmentation.py \
        --out=runs/augmentation

Claims: histories that are cropped, masked or reordered help, as two views that a
contrastive loss compares (Xie et al., CL4SRec, ICDE 2022), and substituting similar
items helps more (Liu et al., CoSeRec, 2021). Question: do they help the full softmax,
without a contrastive loss? Texts lose tokens while the top two layers of the encoder
are trained; the reference of these variants is `top2`.
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config import base
from recjax.config.variants import Add

SHARES = {"crop": 0.4, "mask": 0.2, "reorder": 0.2, "substitute": 0.2}
RULES = base.freeze(reference.TOP, layers=reference.LAYERS, encoder=reference.SHARE)
PHASES = (
    base.phase("towers", **reference.BASIS),
    base.phase(reference.TUNE, **reference.TUNING, lr_mults=RULES),
    base.phase("settle", **reference.SETTLING),
)


def get_config(variant: str = "plain") -> ConfigDict:
    """Returns the config of a variant: ids and titles, and a causal transformer."""
    sources = ("id", "text")
    return reference.make(variant, sweep, tuned=True, item_tower__sources=sources)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("plain", {})
    for name, share in SHARES.items():
        add(name, {f"augment.{name}": share})
    add("one_of_four", {f"augment.{name}": share for name, share in SHARES.items()})
    add("top2", {"train.phases": PHASES})
    for name in ("token_dropout", "token_span"):
        add(name, {"train.phases": PHASES, f"augment.{name}": 0.2})
