"""Warm-up of the learning rate, and which weights decay.

    python -m experiments.sweep --config=configs/ablations/decay.py --out=runs/decay

Claim: warm-up and no decay of biases and norms, as BERT is trained (Devlin et al.,
2019). Here it is the towers that are trained: in the few steps that an encoder's
training has in the other tables, rate times decay times steps is far below 1%.
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config import base


def get_config(point: str = "warmup_kernels") -> ConfigDict:
    """One row of the table; rows differ in warm-up and decay."""
    return reference.make(point, sweep, item_tower__sources=("id", "text"))


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    everything = {"optim.wd_mults": ((r".*", 1.0),)}  # without: the kernels alone
    for name, warmup, decay, rules in (
        ("warmup_kernels", 0.1, 0.1, {}),
        ("no_warmup", 0.0, 0.1, {}),
        ("all_decay", 0.1, 0.1, everything),
        ("none_decays", 0.1, 0.0, {}),
        ("kernels_x10", 0.1, 1.0, {}),
    ):
        phase = base.phase("towers", **reference.TOWERS, warmup=warmup)
        decays = {"optim.weight_decay": decay, **rules}
        add(name, {**decays, "train.phases": (phase,)})
