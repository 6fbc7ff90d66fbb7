"""How deep the encoder is trained: from not at all to all of it, after the towers.

    python -m experiments.sweep --config=configs/ablations/freezing.py \
        --out=runs/freezing

Claims: the last two layers are about as good as all (Wu et al., PLM-NR, SIGIR 2021); a
frozen encoder is 33 times cheaper for 2.1 points of AUC (Yu et al., GRAM, table 5).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config import base


def get_config(point: str = "frozen") -> ConfigDict:
    """One row of the table; rows differ in what the second of three phases trains."""
    return reference.make(point, sweep, tuned=True)


def sweep(add: reference.Add) -> None:
    """The rows of the table."""
    layers = reference.LAYERS
    add("frozen", {"train.phases": phases(base.freeze("all"))})
    for k in range(1, layers + 1):
        rules = base.freeze(k, layers=layers, encoder=reference.SHARE)
        add(f"top{k}", {"train.phases": phases(rules)})
    everything = base.freeze("none", encoder=reference.SHARE)
    add("all", {"train.phases": phases(everything)})


def phases(rules: tuple[tuple[str, float | None], ...]) -> tuple[ConfigDict, ...]:
    """The towers over the frozen encoder; what the rules say; the towers again."""
    return (
        base.phase("towers", **reference.BASIS),
        base.phase(reference.TUNE, **reference.TUNING, lr_mults=rules),
        base.phase("settle", **reference.SETTLING),
    )
