"""What is wrong with a config, said before any time is spent."""

import math
import re
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from typing import Any

import jax

from recjax.baselines import BASELINES, TEXT
from recjax.baselines.ease import MAX_ITEMS
from recjax.catalogue.prefix_cache import DTYPES
from recjax.common.config import flat_config
from recjax.common.errors import UserError
from recjax.data.batching.negatives import NEGATIVES
from recjax.data.ingest.tables import SUFFIXES
from recjax.data.splits import SPLIT_NAMES
from recjax.losses import LOSSES
from recjax.models.encoders.base import EncoderConfig
from recjax.models.heads import FUSION_WEIGHTS, HEADS
from recjax.models.items.text_source import POOLINGS, block_of, is_text_block
from recjax.models.items.tower import COMBINE, SOURCES
from recjax.models.users import (
    BIDIRECTIONAL,
    HAS_HEADS,
    POSITIONS,
    USER_TOWERS,
    USES_GRAPH,
)
from recjax.training.optimizer import (
    OPTIMIZERS,
    SCHEDULES,
    PhaseRules,
)

MAX_COMBINATIONS = 256  # of the weights of a memory
INF = float("inf")
AT_MOST_ONE = math.nextafter(1, 2)  # below this: at most 1
# (at least, below, keys)
RANGES = (
    (
        1,
        INF,
        (
            "data.history_length",
            "text.row_tokens",
            "text.rows_per_batch",
            "loss.num_negatives",
            "loss.refresh_steps",
            "loss.chunk",
            "loss.negatives_per_positive",
            "item_tower.width",
            "user_tower.num_layers",
            "user_tower.num_heads",
            "user_tower.mlp_ratio",
            "user_tower.hidden",
            "user_tower.kernel_size",
            "train.batch_size",
            "train.keep",
            "eval.batch_size",
            "eval.bootstrap_samples",
            "mesh.model",
            "report.every_steps",
        ),
    ),
    (
        0,
        INF,
        (
            "seed",
            "data.split_seed",
            "data.min_rating",
            "data.k_core",
            "eval.candidates",
            "item_tower.mlp_layers",
            "text.lora_rank",
            "text.remat_rows",
            "text.cache_ram_gib",
            "text.cache_disk_gib",
            "optim.clip_norm",
            "optim.weight_decay",
            "train.checkpoint_seconds",
            "train.spike",
            "train.max_skipped",
            "train.min_spread",
            "report.examples",
        ),
    ),
    (1e-9, INF, ("head.fusion_floor",)),
    (0, 1, ("loss.smoothing", "optim.b1", "optim.b2", "optim.momentum")),
    (0, AT_MOST_ONE, ("data.reverse", "loss.gbce_t")),
    (0, 0.99, ("data.cold_items",)),
    (0.01, 1, ("user_tower.mask_share",)),
    (0, 0.99, ("user_tower.dropout",)),
    (1e-6, INF, ("head.temperature", "text.lora_alpha")),
    (1e-30, INF, ("optim.eps",)),
)


def check_config(c: Any) -> None:
    """Refuses unknown names and numbers out of range.

    Raises:
      UserError: names the key, the value and what is allowed.
    """
    phases = c.train.phases
    if not phases or not all(hasattr(p, "lr_mults") for p in phases):
        raise UserError(f"train.phases: {phases!r} is not a tuple of base.phase(...)")
    for key, value in flat_config(c).items():
        if value is None:
            raise UserError(f"{key}: None; the config has to say it")
    if not c.eval.ks or not all(type(k) is int for k in c.eval.ks):
        raise UserError(f"eval.ks: {tuple(c.eval.ks)} are no cut-offs")
    if not re.fullmatch(r"[\w.-]*", c.data.file_prefix) or ".." in c.data.file_prefix:
        raise UserError(
            f"data.file_prefix: {c.data.file_prefix!r} is not a part of a file's name"
        )
    limits = tuple(c.data.rating_range)
    numbers = all(isinstance(x, int | float) for x in limits)
    if limits and not (len(limits) == 2 and numbers and limits[0] < limits[1]):
        raise UserError(f"data.rating_range: {limits} is not (least, most)")
    _check_columns(c.data)
    if jax.process_count() > 1 and c.mesh.model != 1:
        raise UserError(
            f"mesh.model: {c.mesh.model} with several processes; they share the batch"
        )
    _check_names(c)
    for least, below, keys in RANGES:
        for key in keys:
            section, _, name = key.rpartition(".")
            value = c[section][name] if section else c[name]
            _check(key, value, least=least, below=below)
    for k in c.eval.ks:
        _check("eval.ks", k, least=1)
    sources = tuple(c.item_tower.sources)
    if not sources or len(set(sources)) < len(sources):
        raise UserError(f"item_tower.sources: {sources} has to name one, none twice")
    if c.user_tower.name in HAS_HEADS and c.item_tower.width % (
        heads := c.user_tower.num_heads
    ):
        raise UserError(
            f"item_tower.width {c.item_tower.width} is not divisible by "
            f"user_tower.num_heads {heads}"
        )
    if "text" in sources and not c.text.template.strip():
        raise UserError("text.template: empty, but item_tower.sources has text")
    if c.eval.like_threshold and not c.data.rating:
        raise UserError("eval.like_threshold: needs a column of ratings, data.rating")
    _check_together(c)
    _check_phases(phases)


def _check_columns(data: Any) -> None:
    """Raises UserError where a column of the data would be two things."""
    known: dict[str, str] = {}
    for key in ("user", "item", "time", "rating", "history"):
        if key == "history" and data.split != "fixed":
            continue
        if (column := data[key]) and column in known:
            raise UserError(f"data.{key}: {column!r} is data.{known[column]} already")
        known[column] = key


def _check_together(c: Any) -> None:
    """Raises UserError at values that are right alone, but not beside one another."""
    if c.user_tower.name in USES_GRAPH:
        for p in c.train.phases:
            name = p.negatives or c.loss.negatives
            key = f"phase {p.name}: negatives" if p.negatives else "loss.negatives"
            if not NEGATIVES[name].needs_whole_catalogue:
                raise UserError(
                    f"{key}: {name!r}; a graph tower reads all items in every step "
                    "and needs 'all'"
                )
    if c.loss.name == "rating" and not c.eval.like_threshold:
        raise UserError("loss.name: 'rating' needs eval.like_threshold, and ratings")
    weights = tuple(c.head.fusion_weights_grid)
    if not weights or not all(isinstance(w, int | float) for w in weights):
        raise UserError(f"head.fusion_weights_grid: {weights} are no weights")
    if len(set(c.head.fusion)) < len(c.head.fusion):
        raise UserError("head.fusion: one of them is there twice")
    if "random" in c.head.fusion:
        raise UserError("head.fusion: 'random' is not the same twice")
    if len(weights) ** len(c.head.fusion) > MAX_COMBINATIONS:
        raise UserError(
            f"head.fusion_weights_grid: {len(weights)} of each of {len(c.head.fusion)} "
            f"memories are more than {MAX_COMBINATIONS} combinations"
        )
    if c.user_tower.repeats and c.user_tower.name in BIDIRECTIONAL:
        raise UserError(
            f"user_tower.repeats: {c.user_tower.name!r} would be told of hidden items"
        )
    if c.user_tower.name in BIDIRECTIONAL and c.data.history_length < 2:
        raise UserError(
            f"data.history_length: {c.user_tower.name!r} needs at least 2, one of them "
            "for what is asked"
        )
    for key, names in (
        ("eval.baselines", c.eval.baselines),
        ("head.fusion", c.head.fusion),
    ):
        if TEXT in names and "text" not in c.item_tower.sources:
            raise UserError(f"{key}: 'text' needs texts, in item_tower.sources")
        if "bpr_mf" in names and find_spec("implicit") is None:
            raise UserError(
                f"{key}: 'bpr_mf' needs the library implicit: "
                "pip install -e '.[baselines]'"
            )
    shares = tuple(c.data.split_fractions)
    numbers = all(isinstance(x, int | float) for x in shares)
    if len(shares) != 2 or not numbers or min(shares) <= 0 or sum(shares) >= 1:
        raise UserError(
            f"data.split_fractions: {shares} is not (validation, test), below 1"
        )
    if c.data.min_rating and not c.data.rating:
        raise UserError("data.min_rating: needs a column of ratings, data.rating")
    if c.data.split == "fixed" and (c.data.min_rating or c.data.k_core):
        raise UserError("data.split: 'fixed' files are not filtered")


def check_catalogue(c: Any, num_items: int) -> None:
    """Refuses baselines that a catalogue is too large for.

    Raises:
      UserError: names the key.
    """
    for key, names in (
        ("eval.baselines", c.eval.baselines),
        ("head.fusion", c.head.fusion),
    ):
        if "ease" in names and num_items > MAX_ITEMS:
            gigabytes = 12 * num_items**2 / 1e9
            raise UserError(
                f"{key}: 'ease' would need {gigabytes:.0f} GB of memory for "
                f"{num_items} items (at most {MAX_ITEMS}); take it out"
            )


def check_encoder(c: Any, encoder: EncoderConfig) -> None:
    """Refuses what this text encoder cannot do.

    Raises:
      UserError: texts longer than it has positions for, a pooler that it lacks, or
        adapters of a higher rank than its kernels.
    """
    if not 2 < c.text.max_tokens <= encoder.max_tokens:
        raise UserError(
            f"text.max_tokens: {c.text.max_tokens} is not within 3 and "
            f"{encoder.max_tokens}, the encoder's positions"
        )
    if c.item_tower.pooling == "pooler" and not encoder.has_pooler:
        raise UserError(
            f"item_tower.pooling: 'pooler', but text.encoder {c.text.encoder} has none"
        )
    if c.text.lora_rank > encoder.hidden_size:
        raise UserError(
            f"text.lora_rank: {c.text.lora_rank} is more than the encoder's width, "
            f"{encoder.hidden_size}"
        )


def check_phases(c: Any, phases: Sequence[Any], rules: Sequence[PhaseRules]) -> None:
    """Refuses rules of a phase that do not fit, or leave something without effect.

    Args:
      c: the whole config.
      phases: those with epochs.
      rules: of these phases.

    Raises:
      UserError: adapters that no phase trains;
        vectors to be whitened that change.
    """
    lora = memory = False
    for phase, phase_rules in zip(phases, rules, strict=True):
        paths = [p for p, mult in phase_rules.lr_mults.items() if mult is not None]
        lora |= any("/lora_" in path for path in paths)
        memory |= FUSION_WEIGHTS in paths
        encoder = [path for path in paths if is_text_block(path)]
        if c.text.whiten and encoder:
            raise UserError(
                f"text.whiten: phase {phase.name} trains {encoder[0]}, but only "
                "vectors of a wholly frozen encoder are whitened"
            )
    if c.head.fusion and not memory:
        raise UserError(
            f"head.fusion: {', '.join(c.head.fusion)}, but every phase freezes its "
            f"weights, {FUSION_WEIGHTS}"
        )
    if "text" in c.item_tower.sources and c.text.lora_rank and not lora:
        raise UserError(
            f"text.lora_rank: {c.text.lora_rank}, but no phase trains LoRA; "
            "base.freeze('lora') does"
        )


def find_untrained_gaps(
    phases: Sequence[Any],
    rules: Sequence[PhaseRules],
    encoder_config: EncoderConfig,
) -> list[str]:
    """Phases that train a layer of the encoder and nothing of one above it.

    `base.freeze` does that where it is told of fewer layers than there are.

    Args:
      phases: those with epochs.
      rules: of these phases.
      encoder_config: static description of the encoder.
    """
    found = []
    for phase, phase_rules in zip(phases, rules, strict=True):
        mults = phase_rules.lr_mults
        paths = [path for path, mult in mults.items() if mult is not None]
        blocks = {block_of(path, encoder_config) for path in paths}
        layers = range(1, encoder_config.num_blocks - 1)
        trained = [block for block in layers if block in blocks]
        above = range(min(trained, default=layers.stop), layers.stop)
        frozen = [block for block in above if block not in trained]
        if frozen:
            found.append(
                f"phase {phase.name} trains layer_{min(trained) - 1} of the encoder "
                f"and nothing of layer_{frozen[0] - 1} above it, "
                f"of {len(layers)} layers"
            )
    return found


def _check_names(c: Any) -> None:
    metrics = [f"{m}@{k}" for m in ("hr", "ndcg", "mrr") for k in c.eval.ks]
    choices: list[tuple[str, str, Collection[str]]] = [
        *(("item_tower.sources", name, SOURCES) for name in c.item_tower.sources),
        ("item_tower.combine", c.item_tower.combine, COMBINE),
        ("item_tower.pooling", c.item_tower.pooling, POOLINGS),
        ("text.cache_dtype", c.text.cache_dtype, DTYPES),
        ("user_tower.name", c.user_tower.name, USER_TOWERS),
        ("user_tower.position", c.user_tower.position, POSITIONS),
        ("head.name", c.head.name, HEADS),
        *(("head.fusion", name, (*BASELINES, TEXT)) for name in c.head.fusion),
        ("data.split", c.data.split, SPLIT_NAMES),
        ("data.format", c.data.format, SUFFIXES),
        ("loss.name", c.loss.name, LOSSES),
        ("optim.name", c.optim.name, OPTIMIZERS),
        *((f"phase {p.name}: schedule", p.schedule, SCHEDULES) for p in c.train.phases),
        *((f"phase {p.name}: keep", p.keep, ("best", "last")) for p in c.train.phases),
        ("loss.negatives", c.loss.negatives, NEGATIVES),
        *(
            (f"phase {p.name}: negatives", p.negatives, NEGATIVES)
            for p in c.train.phases
            if p.negatives
        ),
        ("data.windows", c.data.windows, ("last", "all")),
        ("train.dtype", c.train.dtype, ("float32", "bfloat16")),
        ("train.metric", c.train.metric, (*metrics, "auc")),
        *(("eval.baselines", name, (*BASELINES, TEXT)) for name in c.eval.baselines),
        *(("report.metrics", name, (*metrics, "auc")) for name in c.report.metrics),
    ]
    for key, name, known in choices:
        if name not in known:
            raise UserError(f"{key}: {name!r} is not one of {', '.join(known)}")


def _check_phases(phases: Any) -> None:
    for phase in phases:
        if not re.fullmatch(r"[\w-]+", phase.name):
            raise UserError(f"train.phases: name {phase.name!r} is not a word")
        _check(f"phase {phase.name}: epochs", phase.epochs, least=0)
        _check(f"phase {phase.name}: batch_size", phase.batch_size, least=0)
        _check(f"phase {phase.name}: patience", phase.patience, least=0)
        _check(f"phase {phase.name}: epoch_steps", phase.epoch_steps, least=0)
        _check(f"phase {phase.name}: lr", phase.lr, least=0)
        _check(f"phase {phase.name}: warmup", phase.warmup, least=0, below=AT_MOST_ONE)
        _check(f"phase {phase.name}: ema", phase.ema, least=0, below=1)
    names = [phase.name for phase in phases]
    if len(set(names)) < len(names):
        raise UserError(f"train.phases: two of {', '.join(names)} have one name")
    if not any(phase.epochs for phase in phases):
        raise UserError("train.phases: no phase has any epochs")


def _check(key: str, value: Any, *, least: float, below: float = INF) -> None:
    if not least <= value < below:
        limit = {INF: "", AT_MOST_ONE: " and at most 1"}.get(
            below, f" and below {below:g}"
        )
        raise UserError(f"{key}: {value} is not at least {least:g}{limit}")
