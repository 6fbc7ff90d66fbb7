"""Validates a config against its data, its text encoder and the model's parameters."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from recjax.baselines.ease import MAX_ITEMS
from recjax.common.errors import UserError
from recjax.config.validate import baseline_keys
from recjax.models.encoders.base import EncoderConfig
from recjax.models.heads import FUSION_WEIGHTS
from recjax.models.items.text_source import block_of, is_text_block
from recjax.models.items.tower import ZERO_SHOT
from recjax.training.optimizer import PhaseRules


def check_catalogue(config: ConfigDict, num_items: int) -> None:
    """Raises UserError if baselines or candidates do not fit the catalogue's size."""
    if config.eval.candidates >= num_items:
        raise UserError(
            f"eval.candidates: {config.eval.candidates} cannot be sampled from "
            f"{num_items} items; 0 ranks all items"
        )
    for key, names in baseline_keys(config):
        if "ease" in names and num_items > MAX_ITEMS:
            # An N x N matrix in double precision and one in single precision.
            gigabytes = 12 * num_items**2 / 1e9
            raise UserError(
                f"{key}: 'ease' would need {gigabytes:.0f} GB of memory for "
                f"{num_items} items (at most {MAX_ITEMS}); remove it"
            )


def check_encoder(config: ConfigDict, encoder: EncoderConfig) -> None:
    """Raises UserError if the text encoder lacks something that the config requires."""
    if config.text.max_tokens > encoder.max_tokens:
        raise UserError(
            f"text.max_tokens: {config.text.max_tokens} is more than the encoder's "
            f"maximum, {encoder.max_tokens}"
        )
    if config.item_tower.pooling == "pooler" and not encoder.has_pooler:
        raise UserError(
            f"item_tower.pooling: 'pooler', but text.encoder {config.text.encoder} has "
            "none"
        )
    width, tower = encoder.hidden_size, config.item_tower
    if tower.init == ZERO_SHOT and tower.width > width:
        raise UserError(
            f"item_tower.width: {tower.width} is more than the encoder's width, "
            f"{width}, which is the largest one for item_tower.init 'zero_shot'"
        )
    if config.text.lora_rank > encoder.hidden_size:
        raise UserError(
            f"text.lora_rank: {config.text.lora_rank} is more than the encoder's "
            f"width, {encoder.hidden_size}"
        )


def check_phases(
    config: ConfigDict, phases: Sequence[ConfigDict], rules: Sequence[PhaseRules]
) -> None:
    """Checks the learning-rate rules of the phases against the parameters.

    `rules` are the resolved rules of the `phases`, which are those with epochs.

    Raises:
      UserError: adapters or fusion weights that no phase trains; whitening of vectors
        that change; tokens to leave out, but no phase that encodes texts.
    """
    lora_trained = fusion_trained = encoder_trained = False
    for phase, phase_rules in zip(phases, rules, strict=True):
        paths = phase_rules.trained_paths()
        lora_trained |= any("/lora_" in path for path in paths)
        fusion_trained |= FUSION_WEIGHTS in paths
        encoder = [path for path in paths if is_text_block(path)]
        encoder_trained |= bool(encoder)
        # The whitening is fitted once, to the vectors before any training.
        if config.text.whiten and encoder:
            raise UserError(
                f"text.whiten: phase {phase.name} trains {encoder[0]}, but only "
                "vectors of a completely frozen encoder can be whitened"
            )
    if config.head.fusion and not fusion_trained:
        raise UserError(
            f"head.fusion: {', '.join(config.head.fusion)}, but every phase freezes "
            f"the fusion weights, {FUSION_WEIGHTS}"
        )
    has_lora = "text" in config.item_tower.sources and config.text.lora_rank
    if has_lora and not lora_trained:
        raise UserError(
            f"text.lora_rank: {config.text.lora_rank}, but no phase trains LoRA; set "
            "its lr_mults to freeze('lora')"
        )
    for name in () if encoder_trained else ("token_dropout", "token_span"):
        if config.augment[name]:
            raise UserError(
                f"augment.{name}: {config.augment[name]}, but no phase trains a part "
                "of the text encoder, so no step reads tokens; set 0"
            )


def find_untrained_gaps(
    phases: Sequence[ConfigDict], rules: Sequence[PhaseRules], encoder: EncoderConfig
) -> list[str]:
    """Describes phases that train an encoder layer below a frozen one.

    `rules` are the resolved rules of the `phases`, which are those with epochs.
    """
    # `freeze` makes such rules if it is given fewer layers than the encoder has.
    gaps = []
    layers = range(1, encoder.num_blocks - 1)  # without embeddings and pooling
    for phase, phase_rules in zip(phases, rules, strict=True):
        # Blocks count from the embeddings, 0, over the layers to the pooling.
        blocks = {block_of(path, encoder) for path in phase_rules.trained_paths()}
        trained = [block for block in layers if block in blocks]
        above = range(min(trained, default=layers.stop), layers.stop)
        frozen = [block for block in above if block not in trained]
        if frozen:
            gaps.append(
                f"phase {phase.name} trains layer_{min(trained) - 1} of the encoder "
                f"and freezes layer_{frozen[0] - 1} above it, of {len(layers)} layers"
            )
    return gaps
