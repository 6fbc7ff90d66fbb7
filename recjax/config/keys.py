"""Declares every key of the config: default, meaning, unit, bounds and choices.

Sections and keys are in the order in which they are documented and printed.
"""

from recjax.config.schema import Key, choice, count, fraction

MAX_SEED = 2**31 - 1  # JAX makes keys of 32 bits
SECTIONS: dict[str, dict[str, Key]] = {}

SECTIONS[""] = {
    "seed": Key(
        0,
        "Seed of everything random except data.split_seed.",
        at_least=0,
        at_most=MAX_SEED,
    )
}

SECTIONS["data"] = {
    "source": Key(
        "ml-100k", "A data set that recjax downloads, or a directory with data files."
    ),
    "format": choice("atomic", "file_formats", "File format; atomic is RecBole's TSV."),
    "file_prefix": Key(
        "", "Start of file names, before `.inter`; empty means the directory's name."
    ),
    "split": choice(
        "leave_one_out",
        "splits",
        "How events become training, validation and test examples: the last two events "
        "of each user (leave_one_out), the last fractions per user (ratio), the newest "
        "fractions of all (time), held-out users (user), or split files (fixed). none "
        "trains on all events; metrics are then in-sample.",
    ),
    "split_fractions": Key(
        (0.1, 0.1), "Fractions of events, or of users, in validation and test."
    ),
    "split_seed": Key(
        0,
        "Seed of held-out users, cold items and evaluation candidates.",
        at_least=0,
        at_most=MAX_SEED,
    ),
    "cold_items": fraction(
        0.0,
        "Fraction of the items whose only events are validation and test targets.",
        below=0.99,
    ),
    "min_rating": Key(0.0, "Lower-rated events are removed; 0 keeps all.", at_least=0),
    "k_core": count(
        0, "events", "Users and items with fewer are removed, repeatedly; 0 keeps all."
    ),
    "user": Key("user_id", "Column of the user id in the interaction file."),
    "item": Key("item_id", "Column of the item id in the interaction and item files."),
    "time": Key(
        "timestamp",
        "Column of times: seconds or ISO dates; empty if rows are in order.",
    ),
    "rating": Key("", "Column of the rating; empty if there is none."),
    "history": Key(
        "item_id_list",
        "Column of the history in files that are split already: item ids separated by "
        "spaces, oldest first.",
    ),
    "item_table": Key(True, "Whether there is an item file."),
    "user_table": Key(False, "Whether there is a user file."),
    "strict": Key(
        True, "Whether an invalid row is an error, or skipped (see rejected.csv)."
    ),
    "rating_range": Key(
        (), "Lowest and highest valid rating; empty accepts all.", infinite=True
    ),
    "user_key": Key(
        "",
        "File with a secret, outside the run directory, used to replace user ids by "
        "their HMAC-SHA256. Empty keeps the ids.",
    ),
    "history_length": count(
        50, "items", "Maximum length H of a user tower's history.", at_most=100_000
    ),
    "shuffle_ties": Key(
        True, "Whether every epoch shuffles a user's training events of the same time."
    ),
    "reverse": fraction(0.0, "Fraction of training windows read newest to oldest."),
    "windows": choice(
        "all",
        ("last", "all"),
        "Training windows: the newest H + 1 items (last), or cut from all items (all).",
    ),
}

SECTIONS["augment"] = {
    "rate": fraction(
        0.5,
        "Fraction of the training windows that are transformed, each in one of the "
        "ways below that have a share above 0.",
    ),
    "crop": fraction(
        0.0, "Share of a window's events that are cut off at its ends.", below=1
    ),
    "mask": fraction(0.0, "Share of a window's inputs that are left out.", below=1),
    "reorder": fraction(
        0.0, "Share of a window's inputs, next to each other, that are shuffled."
    ),
    "substitute": fraction(
        0.0, "Share of a window's inputs that are replaced by items with similar texts."
    ),
    "neighbours": count(
        10,
        "items",
        "Nearest items, by cosines of half-whitened encoder vectors, from which "
        "substitute chooses.",
        at_most=1000,
    ),
    "token_dropout": fraction(
        0.0,
        "Probability of each token of a text to be left out in training steps that "
        "encode texts.",
        below=1,
    ),
    "token_span": fraction(
        0.0,
        "Share of a text's tokens, next to each other, that are left out in training "
        "steps that encode texts.",
        below=1,
    ),
}

SECTIONS["text"] = {
    "encoder": Key(
        "all-MiniLM-L6-v2",
        "Encoder: a known name, a directory, or owner/name[@revision] on Hugging Face.",
    ),
    "pretrained": Key(True, "Whether the encoder starts from its trained weights."),
    "lora_rank": count(
        0,
        "",
        "Rank of LoRA adapters of all query and value projections; 0 adds none.",
        at_most=100_000,
    ),
    "lora_alpha": Key(16.0, "Scales LoRA by lora_alpha / lora_rank.", at_least=1e-6),
    "whiten": Key(
        False, "Whether a frozen encoder's vectors are ZCA-whitened over the catalogue."
    ),
    "template": Key(
        "{movie_title} ({release_year}). {class}",
        "Text of an item, with columns of the item file in braces.",
    ),
    "title": Key("{movie_title}", "Name of an item in reports, like text.template."),
    "max_tokens": count(32, "tokens", "Longer texts are truncated.", at_least=3),
    "row_tokens": count(64, "tokens", "Length of the rows that texts are packed into."),
    "rows_per_batch": count(
        32, "token rows", "Rows encoded at once for the catalogue."
    ),
    "cache_dtype": choice(
        "float32", "cache_dtypes", "Number format of cached outputs of frozen blocks."
    ),
    "cache_ram_gib": Key(
        4.0, "Larger outputs of frozen blocks are memory-mapped.", "GiB", at_least=0
    ),
    "cache_disk_gib": Key(
        20.0, "Maximum disk cache of frozen outputs; 0 disables.", "GiB", at_least=0
    ),
    "remat_rows": count(
        0,
        "token rows",
        "Token rows that go through the trained encoder layers at once, recomputed in "
        "the backward pass to save memory; 0 keeps all activations.",
    ),
}

SECTIONS["item_tower"] = {
    "sources": choice(("text",), "item_sources", "Sources of the item vectors."),
    "combine": choice("sum", "combinations", "How several sources are combined."),
    "pooling": choice(
        "mean",
        "poolings",
        "How a text's states are pooled; pooler is the pretrained layer over [CLS].",
    ),
    "mlp_layers": count(
        0,
        "layers",
        "Hidden layers, of the encoder's width, before the projection.",
        at_most=1000,
    ),
    "width": count(
        64, "dimensions", "Width D of item and user vectors.", at_most=100_000
    ),
    "id_dropout": fraction(
        0.0,
        "Fraction of the items that have no id vector in a step, so that texts learn "
        "to represent items alone.",
        below=0.99,
    ),
    "init": choice(
        "random",
        ("random", "zero_shot"),
        "Initial projection of texts: random, or one that whitens the encoder's "
        "vectors and keeps the main components. With zero_shot, ids add nothing at "
        "first.",
    ),
    "init_whitening": fraction(
        0.5, "Power of the whitening of zero_shot; 1 whitens fully, 0 only centres."
    ),
}

SECTIONS["user_tower"] = {
    "name": choice(
        "transformer",
        "user_towers",
        "Mean pooling, additive attention, GRU, dilated convolutions, causal "
        "transformer, HSTU, BERT4Rec, or LightGCN propagation.",
    ),
    "position": choice("relative", "positions", "Position encoding of transformers."),
    "time": Key(
        False,
        "Whether the attention of transformer and hstu is also biased by the time "
        "between two events, in buckets that grow by factors of two.",
    ),
    "recency": Key(
        False,
        "Whether the tower is added to a recency-weighted mean of the history, and "
        "adds nothing at first.",
    ),
    "width": count(
        0,
        "dimensions",
        "Width inside the tower, with recency; 0 is item_tower.width.",
        at_most=100_000,
    ),
    "filter_share": fraction(
        0.0,
        "Weight of a low-pass filter in each block of the transformer; attention has "
        "the rest. 0 uses attention alone, BSARec 0.7.",
    ),
    "repeats": Key(False, "Whether an embedding marks repeated items of a history."),
    "ratings": Key(
        False,
        "Whether embeddings mark the liked and the other items of a history, by "
        "eval.like_threshold. A saved model knows no ratings and marks no item.",
    ),
    "num_layers": count(
        2, "layers", "Recurrent layers, blocks, or propagation steps.", at_most=1000
    ),
    "num_heads": count(2, "heads", "Attention heads; must divide item_tower.width."),
    "hidden": count(
        128, "dimensions", "Hidden width of additive attention.", at_most=100_000
    ),
    "kernel_size": count(
        3, "items", "Items that one convolution of cnn covers.", at_most=100_000
    ),
    "mask_share": Key(
        0.2, "Fraction of a window's items that bert4rec masks.", at_least=0.01, below=1
    ),
    "mlp_ratio": count(
        4, "", "Hidden width of transformer MLPs, as a multiple of D.", at_most=1000
    ),
    "dropout": fraction(
        0.2, "Dropout rate of inputs, attention weights and MLPs.", below=0.99
    ),
}

SECTIONS["head"] = {
    "name": choice(
        "softmax", "heads", "Scores: scaled cosine (two_tower), or u W v + b (softmax)."
    ),
    "temperature": Key(
        1.0, "Divides the scores; two_tower learns it from this value.", at_least=1e-6
    ),
    "bias": Key(
        False,
        "Whether two_tower has a bias for each item, 0 at first; softmax always has.",
    ),
    "event_bias": Key(
        (),
        "Candidate biases of items without training events, and of those with 1 to 4; "
        "chosen by validation after every epoch. With data.split='none': the two "
        "biases. () has none.",
    ),
    "seen_bias": Key(
        (),
        "Candidate biases of the history's items, chosen by validation after every "
        "epoch, without eval.mask_seen. With data.split='none': the bias. () has none.",
    ),
    "fusion": choice(
        (),
        "fusable_baselines",
        "Score fusion: baselines whose scores or log-probabilities are added. auto, "
        "alone, tries several baselines that the data allow, and keeps those that help "
        "on validation.",
    ),
    "fusion_floor": Key(
        0.01, "Added to fused probabilities before the logarithm.", at_least=1e-9
    ),
    "fusion_weights": Key(
        (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0),
        "Candidate weights of each baseline, chosen by validation after every epoch; "
        "all combinations if they are at most 256, else steps that change one weight. "
        "With data.split='none': the weight of each baseline, in their order.",
    ),
}

SECTIONS["loss"] = {
    "name": choice(
        "softmax",
        "losses",
        "Softmax cross-entropy, binary cross-entropy (bce), calibrated as in gSASRec "
        "(gbce), or on likes (rating).",
    ),
    "negatives_per_positive": count(
        1,
        "negatives",
        "Negatives k per target of bce and gbce, which scale the mean over candidates.",
        at_most=1_000_000,
    ),
    "gbce_t": fraction(0.75, "Calibration t of gbce; 0 is plain bce."),
    "negatives": choice(
        "all",
        "negatives",
        "Candidates of a step: the catalogue (all), the same with only the batch's "
        "vectors recomputed (stale), the batch's items (in_batch), sampled items "
        "(uniform, popularity), or in_batch plus uniform (mixed).",
    ),
    "num_negatives": count(1024, "items", "Sampled negatives that a batch shares."),
    "refresh_steps": count(
        50, "steps", "Steps between refreshes of stale vectors; epochs begin with one."
    ),
    "chunk": count(1024, "items", "Candidates with scores in memory at a time."),
    "smoothing": fraction(0.0, "Label smoothing of softmax over candidates.", below=1),
    "logq": Key(
        True, "Whether in-batch and sampled negatives weigh 1 / expected count (logQ)."
    ),
    "auxiliary": choice(
        (),
        "auxiliary_losses",
        "Losses beside the main one: the target's category, items near each other in a "
        "history (contrast), histories with the same target (duorec), likes (rating).",
    ),
    "auxiliary_weights": Key(
        (), "Weight of each of them; () learns the weights of all losses."
    ),
    "category": Key(
        "",
        "Column of the item file with the categories; empty clusters the text vectors "
        "of the pretrained encoder.",
    ),
    "num_categories": count(
        64,
        "categories",
        "Number of clusters, or of values of the column, of which the rarest count as "
        "one.",
        at_least=2,
        at_most=100_000,
    ),
    "temperature": Key(
        0.1, "Divides the cosines of contrast and duorec.", at_least=1e-6
    ),
}

SECTIONS["optim"] = {
    "name": choice("adamw", "optimizers", "Optimizer."),
    "b1": fraction(0.9, "Decay of AdamW's running mean of the gradients.", below=1),
    "b2": fraction(0.999, "Decay of AdamW's mean of the squared gradients.", below=1),
    "eps": Key(1e-8, "Added to the denominator of AdamW's update.", at_least=1e-30),
    "momentum": fraction(0.9, "Momentum of sgd.", below=1),
    "clip_norm": Key(
        1.0, "Maximum global norm of gradients; 0 never clips.", at_least=0
    ),
    "shared_moment": Key(
        (),
        "Regexes of parameters to which AdamW gives one second moment for all their "
        "numbers, so that the vectors of rare items move little.",
    ),
    "weight_decay": Key(0.01, "Weight decay, times the learning rate.", at_least=0),
    "wd_mults": Key(
        ((r".*/kernel", 1.0), (r".*", 0.0)),
        "Ordered (regex, multiplier of weight decay) over paths; first match decides.",
    ),
}

SECTIONS["train"] = {
    "batch_size": count(64, "users", "Batch size B.", at_most=1_000_000),
    "by_length": Key(
        False,
        "Whether a batch has windows of similar length, so that short ones need little "
        "padding.",
    ),
    "dtype": choice(
        "float32",
        ("float32", "bfloat16"),
        "Number format of the computation; parameters are always float32.",
    ),
    "metric": Key("ndcg@10", "Validation metric of early stopping and best epochs."),
    "group_weights": Key(
        (),
        "Weights of new, cold and warm targets in that metric, whose value is the "
        "weighted mean of their means; () counts every example equally.",
    ),
    "checkpoint_seconds": Key(60.0, "Time between checkpoints.", "seconds", at_least=0),
    "keep": count(2, "checkpoints", "Newest checkpoints of a phase that are kept."),
    "spike": Key(
        10.0,
        "After the first 100 batches of a phase, a loss above this multiple of its "
        "running mean skips the batch; 0 skips none. Non-finite losses always skip it.",
        at_least=0,
    ),
    "max_skipped": count(
        10, "batches", "More skipped batches in a phase end the run.", at_least=0
    ),
    "min_spread": Key(
        1e-3,
        "Directional variance of vectors below which a run warns; 0 never does.",
        at_least=0,
    ),
    "init_from": Key(
        "",
        "Run or model whose parameters are the initial ones; empty for random towers.",
    ),
    "phases": Key((), "Training phases in order, each made by `phase(...)`."),
}

SECTIONS["eval"] = {
    "ks": count((1, 5, 10, 20), "items", "Cut-offs of HR, NDCG and MRR."),
    "batch_size": count(256, "users", "Batch size of evaluation.", at_most=1_000_000),
    "candidates": count(
        0, "items", "Sampled candidates of a target; 0 ranks it among all items."
    ),
    "mask_seen": Key(True, "Whether history items are excluded, except the target."),
    "bootstrap_samples": count(
        1000, "samples", "Bootstrap samples of 95% intervals.", at_most=100_000
    ),
    "like_threshold": Key(
        0.0, "Ratings of at least this value are reported as likes; 0 reports none."
    ),
    "baselines": choice(
        ("random", "popularity"),
        "baselines",
        "Baselines in the results table, fitted on all training histories and queried, "
        "like the model, with the newest data.history_length events. recent_popularity "
        "uses the file's order with fixed splits; repeat_transitions treats repeats as "
        "separate items; bpr_mf needs the library implicit; text uses cosines of "
        "half-whitened encoder vectors.",
    ),
    "zero_shot": Key(True, "Whether the text encoder is evaluated before training."),
}

SECTIONS["mesh"] = {
    "data": Key(
        1, "Devices that share a batch; -1 uses all that mesh.model leaves.", "devices"
    ),
    "model": count(1, "devices", "Number of devices that share the weights."),
    "rules": Key(
        ((r".*/(kernel|embedding)", (None, "model")), (r".*", ())),
        "Ordered (regex, mesh axis per dimension) over paths; first match decides.",
    ),
}

SECTIONS["report"] = {
    "every_steps": count(10, "steps", "Steps between two logged training losses."),
    "examples": count(5, "users", "Users shown with recommendations.", at_least=0),
    "save_model": Key(True, "Write model/, from which the run can be used."),
    "keep_histories": Key(True, "Keep the users' histories in model/."),
    "wandb": Key("", "Weights & Biases project of the run; empty logs nothing there."),
    "metrics": Key(("hr@10", "ndcg@10", "mrr@10", "auc"), "Columns of results tables."),
}

# Keys of each element of train.phases.
PHASE: dict[str, Key] = {
    "name": Key("towers", "Name of the phase in tables and logs."),
    "epochs": count(
        20,
        "epochs",
        "Maximum number; 0 skips the phase.",
        at_least=0,
        at_most=1_000_000,
    ),
    "batch_size": count(
        0, "users", "Batch size; 0 uses train.batch_size.", at_most=1_000_000
    ),
    "epoch_steps": count(
        0,
        "steps",
        "Number of steps of an epoch; the next one continues with the remaining "
        "windows. 0 trains on every window once per epoch.",
    ),
    "lr": Key(1e-3, "Peak learning rate, before lr_mults.", at_least=0),
    "schedule": choice("constant", "schedules", "Learning-rate decay after warm-up."),
    "warmup": fraction(0.0, "Fraction of the steps in which lr rises linearly."),
    "patience": count(
        5, "epochs", "Epochs without progress that end a phase; 0 disables.", at_least=0
    ),
    "keep": choice(
        "best",
        ("best", "last"),
        "Parameters tested and passed on: of the best validated epoch, or the last.",
    ),
    "ema": fraction(
        0.0, "Decay per step of weights averaged for evaluation; 0 disables.", below=1
    ),
    "anchor": Key(
        0.0,
        "Weight decay of the encoder towards its weights at the start of the phase, "
        "times the learning rate (L2-SP).",
        at_least=0,
    ),
    "negatives": Key(
        "", "Overrides loss.negatives unless empty.", choices="negatives", optional=True
    ),
    "lr_mults": Key(
        (),
        "Ordered (regex, multiplier of lr) rules over parameter paths; the first match "
        "decides, and None freezes. The default is freeze('all'), see `freeze`.",
    ),
}


def declared_keys() -> dict[str, Key]:
    """Returns the declarations by flat key, as in `item_tower.width`."""
    return {
        f"{section}.{name}" if section else name: key
        for section, keys in SECTIONS.items()
        for name, key in keys.items()
    }
