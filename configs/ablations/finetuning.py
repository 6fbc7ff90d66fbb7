"""How the encoder of a model that starts zero-shot is fine-tuned, before its towers.

    python -m experiments.sweep --config=configs/ablations/finetuning.py \
        --out=runs/finetuning

Questions: which of the encoder's parameters should learn from behaviour, and with which
recipe? The same phase trains the towers in all variants but `joint`, whose only phase
trains the encoder too. Before it, a phase of the same number of steps trains the
encoder, except in `frozen` and `text_only`. `stale`, `anchor` and `more_steps` differ
from `top2` in one setting, `layer_decay` differs from `all`, and `text_only_tuned` has
the phase of `top2`.

With `lora` alone the encoder has adapters, because a run refuses those that no phase
trains. They add zero at first and no number of another parameter depends on them, so
all variants start from the same model. LoRA and BitFit train few parameters, for which
a learning rate of 1e-4 can be too small: `lora_fast` and `bias_fast` have the tenfold.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.ablations import reference, zero_shot
from configs.ablations.zero_shot import TOWERS
from configs.recipes import ENCODER, TEXT_ONLY
from recjax.config import base
from recjax.config.variants import Add, Changes

LORA = {"text.lora_rank": 8}
FAST = {"lr": 1e-3}


def get_config(variant: str = "frozen") -> ConfigDict:
    """Returns the config of a variant: ids and texts, and a small transformer."""
    return reference.make(variant, sweep, prepare=prepare)


def prepare(config: ConfigDict) -> None:
    """Sets what all variants share."""
    zero_shot.prepare(config)
    # A step encodes the texts of its batch in pieces, so that memory is bounded.
    config.text.remat_rows = 32


def sweep(add: Add) -> None:
    """Adds the variants, the rows of the table."""
    add("frozen", {})
    add("bias", tune("bias"))
    add("bias_fast", tune("bias", **FAST))
    add("lora", {**tune("lora"), **LORA})
    add("lora_fast", {**tune("lora", **FAST), **LORA})
    for k in range(1, 4):
        add(f"top{k}", tune(k))
    add("all", tune("none"))
    add("layer_decay", tune("none", layer_decay=0.8))
    add("stale", tune(reference.TOP, negatives="stale"))
    # At this rate and number of steps it halves the distance from the first weights.
    add("anchor", tune(reference.TOP, anchor=100.0))
    add("more_steps", tune(reference.TOP, epoch_steps=3 * ENCODER.epoch_steps))
    add("joint", {"train.phases": (joint(),)})
    add("text_only", TEXT_ONLY)
    add("text_only_tuned", {**TEXT_ONLY, **tune(reference.TOP)})


def tune(what: str | int, *, layer_decay: float = 1.0, **changes: Any) -> Changes:
    """Returns a phase that trains the encoder, followed by the towers.

    Args:
      what: what it trains in the encoder, see `base.freeze`.
      layer_decay: see `base.freeze`.
      changes: other keys of the phase that differ from those of `ENCODER`.
    """
    rules = base.tune_encoder(what, layers=reference.LAYERS, layer_decay=layer_decay)
    phase = ENCODER.copy_and_resolve_references()
    phase.update({"lr_mults": rules, **changes})
    return {"train.phases": (phase, TOWERS)}


def joint() -> ConfigDict:
    """Returns a phase that trains the towers and the encoder, at a tenth of the rate.

    It has the steps and, as `TOWERS`, the candidates of the complete catalogue, whose
    texts a step cannot encode.
    """
    rules = base.freeze(reference.TOP, layers=reference.LAYERS, encoder=0.1)
    phase = TOWERS.copy_and_resolve_references()
    phase.update({"lr_mults": rules, "negatives": "stale"})
    return phase
