"""Validates a config against its data, its text encoder and the model's parameters."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from recjax.baselines.ease import MAX_ITEMS
from recjax.catalogue.frozen_prefix import block_of
from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, match_rules
from recjax.config.validate import baseline_keys
from recjax.models.encoders.bert import BertConfig
from recjax.models.heads import FUSION_WEIGHTS
from recjax.training.optimizer import make_optimizer, split_params


def check_catalogue(config: ConfigDict, num_items: int) -> None:
    """Checks that the baselines can be fitted to a catalogue of this size.

    Raises:
      UserError: names the key.
    """
    for key, names in baseline_keys(config):
        if "ease" in names and num_items > MAX_ITEMS:
            # An N x N matrix in double precision and one in single precision.
            gigabytes = 12 * num_items**2 / 1e9
            raise UserError(
                f"{key}: 'ease' would need {gigabytes:.0f} GB of memory for "
                f"{num_items} items (at most {MAX_ITEMS}); remove it"
            )


def check_encoder(config: ConfigDict, encoder: BertConfig) -> None:
    """Checks that the text encoder supports what the config requires.

    Raises:
      UserError: texts longer than its positions, a pooler that it lacks, or adapters
        of a higher rank than its kernels.
    """
    if not 2 < config.text.max_tokens <= encoder.max_tokens:
        raise UserError(
            f"text.max_tokens: {config.text.max_tokens} is not within 3 and "
            f"{encoder.max_tokens}, the encoder's positions"
        )
    if config.item_tower.pooling == "pooler" and not encoder.has_pooler:
        raise UserError(
            f"item_tower.pooling: 'pooler', but text.encoder {config.text.encoder} has "
            "none"
        )
    if config.text.lora_rank > encoder.hidden_size:
        raise UserError(
            f"text.lora_rank: {config.text.lora_rank} is more than the encoder's "
            f"width, {encoder.hidden_size}"
        )


def check_phases(
    config: ConfigDict, phases: Sequence[ConfigDict], shapes: FlatParams
) -> None:
    """Checks the learning-rate rules of the phases against the parameters.

    Args:
      config: the complete config.
      phases: those with epochs.
      shapes: shapes of all parameters.

    Raises:
      UserError: rules that do not fit the parameters; adapters or fusion weights that
        no phase trains; whitening of vectors that change.
    """
    lora_trained = fusion_trained = False
    for phase in phases:
        optimizer = make_optimizer(config.optim, phase, list(shapes), steps=1)
        paths = list(split_params(shapes, optimizer)[0])
        lora_trained |= any("/lora_" in path for path in paths)
        fusion_trained |= FUSION_WEIGHTS in paths
        encoder = [path for path in paths if block_of(path, 0) is not None]
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


def find_untrained_gaps(
    phases: Sequence[ConfigDict], paths: Sequence[str], layers: int
) -> list[str]:
    """Describes phases that train an encoder layer below a frozen one.

    `freeze` produces such rules if it is given fewer layers than the encoder has.

    Args:
      phases: those with epochs.
      paths: paths of all parameters.
      layers: number of layers of the encoder.
    """
    found = []
    for phase in phases:
        mults = match_rules(phase.lr_mults, paths, f"phase {phase.name}: lr_mults")
        blocks = {block_of(path, layers) for path in paths if mults[path] is not None}
        # Block 0 is the embeddings, block `layers + 1` the pooling.
        trained = {block - 1 for block in blocks if block and block <= layers}
        above = range(min(trained, default=layers), layers)
        frozen = [layer for layer in above if layer not in trained]
        if frozen:
            found.append(
                f"phase {phase.name} trains layer_{min(trained)} of the encoder and "
                f"freezes layer_{frozen[0]} above it, of {layers} layers"
            )
    return found
