"""Warm-up of the learning rate, and which weights decay, where the encoder is trained.

    python -m experiments.sweep --config=configs/ablations/decay.py --out=runs/decay

Claim: warm-up and no decay of biases and norms, as BERT is trained (Devlin et al.,
2019).
"""

from ml_collections import ConfigDict

from configs import base
from configs.ablations import reference


def get_config(point: str = "warmup_kernels") -> ConfigDict:
    """One row of the table; every row has the same two phases but for this."""
    return reference.make(point, sweep, titles=True)


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    kernels = ((r".*/kernel", 1.0), (r".*", 0.0))
    top = base.freeze(2, layers=reference.LAYERS, encoder=0.2)
    for name, warmup, rules, rate in (
        ("warmup_kernels", 0.1, kernels, 0.01),
        ("no_warmup", 0.0, kernels, 0.01),
        ("all_decay", 0.1, ((r".*", 1.0),), 0.01),
        ("none_decays", 0.1, kernels, 0.0),
        ("kernels_x10", 0.1, kernels, 0.1),
    ):
        phases = (
            base.phase("towers", **reference.TOWERS),
            base.phase("tune", **{**reference.TUNING, "warmup": warmup}, lr_mults=top),
        )
        changes = {"optim.weight_decay": rate, "optim.wd_mults": rules}
        add(name, {**changes, "train.phases": phases})
