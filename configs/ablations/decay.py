"""Warm-up of the learning rate, and which weights decay.

    python -m experiments.sweep --config=configs/ablations/decay.py --out=runs/decay

Claim: warm-up and no decay of biases and norms, as BERT is trained (Devlin et al.,
2019). Here it is the towers that are trained: in the few steps that an encoder's
training has in the other tables, rate times decay times steps is far below 1%.
"""

from ml_collections import ConfigDict

from configs import base
from configs.ablations import reference

Rules = tuple[tuple[str, float], ...]
KERNELS: Rules = ((r".*/kernel", 1.0), (r".*", 0.0))
ALL: Rules = ((r".*", 1.0),)


def get_config(point: str = "warmup_kernels") -> ConfigDict:
    """One row of the table; every row has the same phase but for this."""
    return reference.make(point, sweep, item_tower__sources=("id", "text"))


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    for name, warmup, rules, decay in (
        ("warmup_kernels", 0.1, KERNELS, 0.1),
        ("no_warmup", 0.0, KERNELS, 0.1),
        ("all_decay", 0.1, ALL, 0.1),
        ("none_decays", 0.1, KERNELS, 0.0),
        ("kernels_x10", 0.1, KERNELS, 1.0),
    ):
        phase = base.phase("towers", **reference.TOWERS, warmup=warmup)
        changes = {"optim.weight_decay": decay, "optim.wd_mults": rules}
        add(name, {**changes, "train.phases": (phase,)})
