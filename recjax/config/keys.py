"""Declares every key of the config: default, meaning, unit, bounds and choices.

Sections and keys are in the order in which they are documented and printed.
"""

from recjax.config import choices
from recjax.config.schema import Key

GENERAL = {
    "seed": Key(
        0, "Seed of all random numbers except those of data.split_seed.", at_least=0
    )
}

DATA = {
    "source": Key(
        "ml-100k",
        "A data set that recjax downloads, by name, or a directory with data files.",
    ),
    "format": Key(
        "atomic",
        "File format; atomic is the tab-separated format of RecBole.",
        choices=choices.file_formats,
    ),
    "file_prefix": Key(
        "",
        "First part of the file names, before `.inter` or `.item`. Empty means the "
        "name of the directory.",
    ),
    "split": Key(
        "leave_one_out",
        "How events become training, validation and test examples: the last two events "
        "of each user (leave_one_out), the last fractions of each user's events "
        "(ratio), the newest fractions of all events (time), held-out users (user), or "
        "files that are split already (fixed).",
        choices=choices.splits,
    ),
    "split_fractions": Key(
        (0.1, 0.1),
        "Fractions of the events, or of the users with data.split=user, in validation "
        "and test.",
    ),
    "split_seed": Key(
        0,
        "Seed that draws held-out users, cold items and evaluation candidates.",
        at_least=0,
    ),
    "cold_items": Key(
        0.0,
        "Fraction of the items that occur as test targets only; their events are "
        "removed from training and from all histories.",
        at_least=0,
        below=0.99,
    ),
    "min_rating": Key(
        0.0, "Events with a lower rating are removed; 0 keeps all.", at_least=0
    ),
    "k_core": Key(
        0,
        "Users and items with fewer events are removed, repeatedly until none is left; "
        "0 keeps all.",
        unit="events",
        at_least=0,
    ),
    "user": Key("user_id", "Column of the user id in the interaction file."),
    "item": Key("item_id", "Column of the item id in the interaction and item files."),
    "time": Key(
        "timestamp",
        "Column of the event time, in seconds or as ISO dates. Empty means that the "
        "file is in chronological order.",
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
        True,
        "Whether an invalid row of a file is an error; otherwise it is skipped and "
        "listed in rejected.parquet.",
    ),
    "rating_range": Key(
        (), "Lowest and highest valid rating; empty accepts every number."
    ),
    "user_key": Key(
        "",
        "File with a secret, outside the run directory, used to replace user ids by "
        "their HMAC-SHA256. Empty keeps the ids.",
    ),
    "history_length": Key(
        50,
        "Maximum length H of the history that the user tower reads.",
        unit="items",
        at_least=1,
    ),
    "shuffle_ties": Key(
        True,
        "Whether training shuffles the events of a user that have the same time, again "
        "in every epoch.",
    ),
    "reverse": Key(
        0.0,
        "Fraction of the training windows that are read from the newest to the oldest "
        "item.",
        at_least=0,
        at_most=1,
    ),
    "windows": Key(
        "all",
        "Training windows of a sequence: the newest H + 1 items only (last), or "
        "consecutive windows so that every event is a target (all).",
        choices=("last", "all"),
    ),
}

TEXT = {
    "encoder": Key(
        "all-MiniLM-L6-v2",
        "Text encoder: a known name, a directory, or owner/name[@revision] on the "
        "Hugging Face Hub.",
    ),
    "pretrained": Key(
        True, "Whether the encoder starts from its weights, or from random ones."
    ),
    "lora_rank": Key(
        0,
        "Rank of LoRA adapters on the query and value projections of every encoder "
        "layer; 0 adds none.",
        at_least=0,
    ),
    "lora_alpha": Key(
        16.0, "The LoRA product is scaled by lora_alpha / lora_rank.", at_least=1e-6
    ),
    "whiten": Key(
        False,
        "Whether the vectors of a completely frozen encoder are whitened over the "
        "catalogue (ZCA).",
    ),
    "template": Key(
        "{movie_title} ({release_year}). {class}",
        "Text of an item, with columns of the item file in braces.",
    ),
    "title": Key(
        "{movie_title}", "Name of an item in reports, with columns in braces."
    ),
    "max_tokens": Key(32, "Longer texts are truncated.", unit="tokens", at_least=3),
    "row_tokens": Key(
        64,
        "Length of the token rows that short texts are packed into.",
        unit="tokens",
        at_least=1,
    ),
    "rows_per_batch": Key(
        32,
        "Number of token rows encoded at once when the catalogue is encoded.",
        unit="token rows",
        at_least=1,
    ),
    "cache_dtype": Key(
        "float32",
        "Number format of the cached outputs of frozen encoder blocks.",
        choices=choices.cache_dtypes,
    ),
    "cache_ram_gib": Key(
        4.0,
        "Larger outputs of frozen encoder blocks stay in a memory-mapped file.",
        unit="GiB",
        at_least=0,
    ),
    "cache_disk_gib": Key(
        20.0,
        "Maximum size of the disk cache of frozen-encoder outputs, which later runs "
        "reuse; 0 disables it.",
        unit="GiB",
        at_least=0,
    ),
    "remat_rows": Key(
        0,
        "Number of token rows that go through the trained encoder layers at once, "
        "recomputed in the backward pass to save memory; 0 keeps all activations.",
        unit="token rows",
        at_least=0,
    ),
}

ITEM_TOWER = {
    "sources": Key(
        ("text",), "What item vectors are computed from.", choices=choices.item_sources
    ),
    "combine": Key(
        "sum",
        "How the vectors of several sources are combined.",
        choices=choices.combinations,
    ),
    "pooling": Key(
        "mean",
        "How token states become the vector of a text; pooler is the encoder's own "
        "pretrained dense layer over [CLS].",
        choices=choices.poolings,
    ),
    "mlp_layers": Key(
        0,
        "Number of hidden layers between the text encoder and the projection to D, "
        "each as wide as the encoder.",
        unit="layers",
        at_least=0,
    ),
    "width": Key(
        64, "Width D of item and user vectors.", unit="dimensions", at_least=1
    ),
}

USER_TOWER = {
    "name": Key(
        "transformer",
        "User tower: mean pooling (mean), additive attention (additive), GRU (gru), "
        "dilated convolutions (cnn), causal transformer (transformer), BERT4Rec "
        "(bert4rec), or LightGCN propagation (graph).",
        choices=choices.user_towers,
    ),
    "position": Key(
        "relative", "Position encoding of the transformers.", choices=choices.positions
    ),
    "repeats": Key(
        False,
        "Whether items that occurred earlier in the same history are marked by an "
        "embedding.",
    ),
    "num_layers": Key(
        2,
        "Number of recurrent layers, blocks, or propagation steps of the tower.",
        unit="layers",
        at_least=1,
    ),
    "num_heads": Key(
        2,
        "Number of attention heads; it must divide item_tower.width.",
        unit="heads",
        at_least=1,
    ),
    "hidden": Key(
        128,
        "Width of the hidden layer that computes additive attention.",
        unit="dimensions",
        at_least=1,
    ),
    "kernel_size": Key(
        3,
        "Number of items that one convolution of the cnn tower covers.",
        unit="items",
        at_least=1,
    ),
    "mask_share": Key(
        0.2,
        "Fraction of the items in a training window that bert4rec masks.",
        at_least=0.01,
        below=1,
    ),
    "mlp_ratio": Key(
        4, "Hidden width of the transformer MLPs, as a multiple of D.", at_least=1
    ),
    "dropout": Key(
        0.2,
        "Dropout rate of the inputs, attention weights and MLPs of the tower.",
        at_least=0,
        below=0.99,
    ),
}

HEAD = {
    "name": Key(
        "softmax",
        "Scores: cosine similarity with a learned temperature (two_tower), or "
        "u W v + b (softmax).",
        choices=choices.heads,
    ),
    "temperature": Key(
        1.0,
        "Scores are divided by it; two_tower learns it from this initial value.",
        at_least=1e-6,
    ),
    "fusion": Key(
        (),
        "Score fusion: baselines whose scores, or log-probabilities, are added to the "
        "model's scores.",
        choices=choices.fusable_baselines,
    ),
    "fusion_floor": Key(
        0.01,
        "Added to the probabilities of fused baselines before the logarithm.",
        at_least=1e-9,
    ),
    "fusion_weights": Key(
        (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0),
        "Candidate weights of each fused baseline; validation selects the best "
        "combination after every epoch.",
    ),
}

LOSS = {
    "name": Key(
        "softmax",
        "Training loss: softmax cross-entropy (softmax), binary cross-entropy (bce), "
        "its calibrated form of gSASRec (gbce), or binary cross-entropy on likes "
        "(rating).",
        choices=choices.losses,
    ),
    "negatives_per_positive": Key(
        1,
        "Negatives per target that the averaged negative terms of bce and gbce count "
        "for.",
        unit="negatives",
        at_least=1,
    ),
    "gbce_t": Key(
        0.75, "Calibration t of gbce; 0 is plain bce.", at_least=0, at_most=1
    ),
    "negatives": Key(
        "all",
        "Candidates of a training step: the catalogue (all), the catalogue with "
        "vectors of which only the batch's are recomputed (stale), the batch's items "
        "(in_batch), sampled items (uniform, popularity), or in_batch plus uniform "
        "(mixed).",
        choices=choices.negatives,
    ),
    "num_negatives": Key(
        1024,
        "Number of sampled negatives that the examples of a batch share.",
        unit="items",
        at_least=1,
    ),
    "refresh_steps": Key(
        50,
        "Steps between re-encodings of all item vectors with loss.negatives=stale; "
        "every epoch also begins with one.",
        unit="steps",
        at_least=1,
    ),
    "chunk": Key(
        1024,
        "Number of candidates whose scores are in memory at the same time.",
        unit="items",
        at_least=1,
    ),
    "smoothing": Key(
        0.0,
        "Label smoothing of softmax: the part of the label that all candidates share.",
        at_least=0,
        below=1,
    ),
    "logq": Key(
        True,
        "Whether in-batch and sampled negatives are weighted by 1 / expected count, so "
        "that they estimate the loss over the catalogue (logQ correction).",
    ),
}

OPTIM = {
    "name": Key("adamw", "Optimizer.", choices=choices.optimizers),
    "b1": Key(
        0.9, "Decay of AdamW's running mean of the gradients.", at_least=0, below=1
    ),
    "b2": Key(
        0.999,
        "Decay of AdamW's running mean of the squared gradients.",
        at_least=0,
        below=1,
    ),
    "eps": Key(1e-8, "Added to the denominator of AdamW's update.", at_least=1e-30),
    "momentum": Key(0.9, "Momentum of sgd.", at_least=0, below=1),
    "clip_norm": Key(
        1.0,
        "Maximum global norm of the gradients, above which they are scaled down; 0 "
        "disables clipping.",
        at_least=0,
    ),
    "weight_decay": Key(
        0.01, "Weight decay, multiplied by the learning rate.", at_least=0
    ),
    "wd_mults": Key(
        ((r".*/kernel", 1.0), (r".*", 0.0)),
        "Ordered (regex, multiplier) rules over parameter paths that scale the weight "
        "decay; the first match decides.",
    ),
}

TRAIN = {
    "batch_size": Key(64, "Batch size B.", unit="users", at_least=1),
    "dtype": Key(
        "float32",
        "Number format of the computation; parameters are always float32.",
        choices=("float32", "bfloat16"),
    ),
    "metric": Key(
        "ndcg@10", "Validation metric for early stopping and for the best epoch."
    ),
    "checkpoint_seconds": Key(
        60.0, "Time between two checkpoints.", unit="seconds", at_least=0
    ),
    "keep": Key(
        2,
        "Number of the newest checkpoints of a phase that are kept.",
        unit="checkpoints",
        at_least=1,
    ),
    "spike": Key(
        10.0,
        "After the first 100 batches of a phase, a batch is skipped if its loss is "
        "above this multiple of the running mean; 0 skips none. Batches whose loss is "
        "not finite are always skipped.",
        at_least=0,
    ),
    "max_skipped": Key(
        10, "More skipped batches in a phase end the run.", unit="batches", at_least=0
    ),
    "min_spread": Key(
        1e-3,
        "Directional variance of item or user vectors below which a warning is logged; "
        "0 never warns.",
        at_least=0,
    ),
    "phases": Key((), "Training phases in order, each made by `phase(...)`."),
}

EVAL = {
    "ks": Key(
        (1, 5, 10, 20), "Cut-offs of HR, NDCG and MRR.", unit="items", at_least=1
    ),
    "batch_size": Key(256, "Batch size of evaluation.", unit="users", at_least=1),
    "candidates": Key(
        0,
        "Number of sampled candidates that a target is ranked against; 0 ranks it "
        "against the catalogue.",
        unit="items",
        at_least=0,
    ),
    "mask_seen": Key(
        True, "Whether the items of a user's history are excluded, except the target."
    ),
    "bootstrap_samples": Key(
        1000,
        "Number of bootstrap samples of the 95% confidence intervals.",
        unit="samples",
        at_least=1,
    ),
    "like_threshold": Key(
        0.0,
        "Ratings from this value on are likes, whose prediction is reported as AUC; 0 "
        "disables the report.",
    ),
    "baselines": Key(
        ("random", "popularity"),
        "Baselines in the results table, fitted on the complete training histories and "
        "queried, like the model, with the newest data.history_length events. "
        "recent_popularity uses the order of the file with fixed splits; "
        "repeat_transitions treats repeated items as different ones; bpr_mf needs the "
        "library implicit; text uses cosines of half-whitened encoder vectors.",
        choices=choices.baselines,
    ),
    "zero_shot": Key(
        True, "Whether the untrained model is evaluated by its text encoder alone."
    ),
}

MESH = {
    "data": Key(
        1,
        "Number of devices that share a batch; -1 uses all that mesh.model leaves.",
        unit="devices",
    ),
    "model": Key(
        1, "Number of devices that share the weights.", unit="devices", at_least=1
    ),
    "rules": Key(
        ((r".*/(kernel|embedding)", (None, "model")), (r".*", ())),
        "Ordered (regex, mesh axis of each dimension) rules over parameter paths; the "
        "first match decides.",
    ),
}

REPORT = {
    "every_steps": Key(
        10,
        "Steps between two logged values of the training loss.",
        unit="steps",
        at_least=1,
    ),
    "examples": Key(
        5, "Number of users whose recommendations are shown.", unit="users", at_least=0
    ),
    "wandb": Key(
        "",
        "Weights & Biases project that the run is logged to; empty logs nothing there.",
    ),
    "metrics": Key(
        ("hr@10", "ndcg@10", "mrr@10", "auc"), "Columns of the results table."
    ),
}

SECTIONS: dict[str, dict[str, Key]] = {
    "": GENERAL,
    "data": DATA,
    "text": TEXT,
    "item_tower": ITEM_TOWER,
    "user_tower": USER_TOWER,
    "head": HEAD,
    "loss": LOSS,
    "optim": OPTIM,
    "train": TRAIN,
    "eval": EVAL,
    "mesh": MESH,
    "report": REPORT,
}

# Keys of each element of train.phases.
PHASE: dict[str, Key] = {
    "name": Key("towers", "Name of the phase in tables and logs."),
    "epochs": Key(
        20, "Maximum number of epochs; 0 skips the phase.", unit="epochs", at_least=0
    ),
    "batch_size": Key(
        0, "Batch size; 0 uses train.batch_size.", unit="users", at_least=0
    ),
    "epoch_steps": Key(
        0,
        "Number of steps of an epoch; the next epoch continues with the remaining "
        "windows. 0 trains on every window once per epoch.",
        unit="steps",
        at_least=0,
    ),
    "lr": Key(1e-3, "Peak learning rate, before lr_mults.", at_least=0),
    "schedule": Key(
        "constant", "Learning-rate decay after the warm-up.", choices=choices.schedules
    ),
    "warmup": Key(
        0.0,
        "Fraction of the steps in which the learning rate rises linearly.",
        at_least=0,
        at_most=1,
    ),
    "patience": Key(
        5,
        "Number of epochs without a better train.metric after which the phase ends; 0 "
        "never ends it early.",
        unit="epochs",
        at_least=0,
    ),
    "keep": Key(
        "best",
        "Parameters that are tested and passed on to the next phase: those of the best "
        "epoch on validation, or of the last.",
        choices=("best", "last"),
    ),
    "ema": Key(
        0.0,
        "Decay per step of the exponential moving average of the weights, which "
        "replaces them in evaluation; 0 disables it.",
        at_least=0,
        below=1,
    ),
    "negatives": Key(
        "",
        "Overrides loss.negatives in this phase; empty keeps it.",
        choices=choices.negatives,
        optional=True,
    ),
    "lr_mults": Key(
        (),
        "Ordered (regex, multiplier) rules over parameter paths that scale the "
        "learning rate; the first match decides, and None freezes. `freeze(...)` "
        "writes the usual rules; the default is freeze('all').",
    ),
}


def declared_keys() -> dict[str, Key]:
    """Returns the declarations by flat key, as in `item_tower.width`."""
    return {
        f"{section}.{name}" if section else name: key
        for section, keys in SECTIONS.items()
        for name, key in keys.items()
    }
