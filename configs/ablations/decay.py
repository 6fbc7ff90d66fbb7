"""Warm-up of the learning rate, and which weights decay.

    python -m experiments.sweep --config=configs/ablations/decay.py --out=runs/decay

Claim: BERT trains with warm-up, and decays no biases or norms (Devlin et al., 2019).
Only the towers are trained: during the few steps that train the encoder in the other
tables, learning rate times weight decay times steps is far below 1%.

Three minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: .108 to .113, no clear order (experiments/decay).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config import base
from recjax.config.variants import Add


def get_config(variant: str = "warmup_kernels") -> ConfigDict:
    """Returns the config of a variant; variants differ in warm-up and decay."""
    return reference.make(variant, sweep, item_tower__sources=("id", "text"))


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    all_weights = {"optim.wd_mults": ((r".*", 1.0),)}  # the default decays kernels only
    for name, warmup, decay, rules in (
        ("warmup_kernels", 0.1, 0.1, {}),
        ("no_warmup", 0.0, 0.1, {}),
        ("all_decay", 0.1, 0.1, all_weights),
        ("none_decays", 0.1, 0.0, {}),
        ("kernels_x10", 0.1, 1.0, {}),
    ):
        phase = base.phase("towers", **reference.TOWERS, warmup=warmup)
        decays = {"optim.weight_decay": decay, **rules}
        add(name, {**decays, "train.phases": (phase,)})
