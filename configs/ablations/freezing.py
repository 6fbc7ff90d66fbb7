"""How many encoder layers are trained, from none to all, after the towers.

    python -m experiments.sweep --config=configs/ablations/freezing.py \
        --out=runs/freezing

Claims: the last two layers are about as good as all (Wu et al., PLM-NR, SIGIR 2021); a
frozen encoder is 33 times cheaper for 2.1 points of AUC (Yu et al., GRAM, table 5).

Sixteen minutes per seed on one CPU core. Test NDCG@10, mean of three seeds on MovieLens
100K: frozen .0741, top2 .0779, all .0766 (experiments/freezing).
"""

from ml_collections import ConfigDict

from configs.ablations import reference
from recjax.config import base
from recjax.config.variants import Add


def get_config(variant: str = "frozen") -> ConfigDict:
    """Returns the config of a variant; they differ in what the second phase trains."""
    return reference.make(variant, sweep, tuned=True)


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    layers = reference.LAYERS
    add("frozen", {"train.phases": phases(base.freeze("all"))})
    for k in range(1, layers + 1):
        rules = base.freeze(k, layers=layers, encoder=reference.SHARE)
        add(f"top{k}", {"train.phases": phases(rules)})
    all_layers = base.freeze("none", encoder=reference.SHARE)
    add("all", {"train.phases": phases(all_layers)})


def phases(rules: tuple[tuple[str, float | None], ...]) -> tuple[ConfigDict, ...]:
    """Towers over the frozen encoder; a phase with the given rules; towers again."""
    return (
        base.phase("towers", **reference.BASIS),
        base.phase(reference.TUNE, **reference.TUNING, lr_mults=rules),
        base.phase("settle", **reference.SETTLING),
    )
