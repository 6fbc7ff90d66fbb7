"""Every key there is, with its default, meaning and unit.

A config is `base.get_config()` with some keys changed; the result is locked, so that
a misspelt key is an error. On the command line: `--config.item_tower.width=128`.
"""

from typing import Any

from ml_collections import ConfigDict

ENCODER = r"items/text/encoder/"


def get_config() -> ConfigDict:
    """The default config, locked: text items, causal transformer, softmax."""
    c = ConfigDict()
    c.seed = 0  # of all that is drawn but what data.split_seed says

    c.data = ConfigDict()
    c.data.source = "ml-100k"  # name in recjax/data/sources.py, or a directory
    c.data.format = "atomic"  # atomic (RecBole) | csv | parquet
    c.data.file_prefix = ""  # first part of the file names; "" = the directory's name
    c.data.split = "leave_one_out"  # leave_one_out | ratio | time | user | fixed
    c.data.split_fractions = (0.1, 0.1)  # of events or users: validation, test
    c.data.split_seed = 0  # of drawn users, cold items and candidates
    c.data.cold_items = 0.0  # share of the items that are new at the test
    c.data.min_rating = 0.0  # events below are left out; 0 = none
    c.data.k_core = 0  # users and items with fewer events are left out, repeatedly
    c.data.user = "user_id"  # column of the interactions, as the next four
    c.data.item = "item_id"  # in the interactions and in the item file
    c.data.time = "timestamp"  # seconds or ISO dates; "" = the order of the file
    c.data.rating = ""  # "" = none
    c.data.history = "item_id_list"  # of fixed splits: item ids, spaces between
    c.data.item_table = True  # whether there is an item file
    c.data.user_table = False  # whether there is a user file
    c.data.strict = True  # a bad row is an error; else it is set aside
    c.data.rating_range = ()  # (least, most) rating; () = any
    c.data.user_key = ""  # file with a key to hash user ids with; "" = as they are
    c.data.history_length = 50  # H, items the user tower sees
    c.data.shuffle_ties = True  # training only: events of one time in any order
    c.data.reverse = 0.0  # training only: share of windows read backwards
    c.data.windows = "all"  # last (newest H + 1 items of a sequence) | all

    c.text = ConfigDict()
    c.text.encoder = "all-MiniLM-L6-v2"  # name, directory, owner/name[@revision]
    c.text.pretrained = True  # False: its weights are drawn anew, all else stays
    c.text.lora_rank = 0  # of LoRA in query and value of every layer; 0 = none
    c.text.lora_alpha = 16.0  # LoRA's product is multiplied by lora_alpha / lora_rank
    c.text.whiten = False  # ZCA of a wholly frozen encoder's vectors over the catalogue
    c.text.template = "{movie_title} ({release_year}). {class}"  # item columns
    c.text.title = "{movie_title}"  # how an item is called in the output
    c.text.max_tokens = 32  # longer texts are cut
    c.text.row_tokens = 64  # texts are packed into rows of so many tokens
    c.text.rows_per_batch = 32  # rows at a time where the catalogue is encoded
    c.text.cache_dtype = "float32"  # of what frozen blocks make: float32 | bfloat16
    c.text.cache_ram_gib = 4.0  # GiB; larger states of a prefix stay in a file, mapped
    c.text.cache_disk_gib = 20.0  # GiB of such files, for later runs; 0 = none
    c.text.remat_rows = 0  # of the trained layers, again in the backward pass; 0 = off

    c.item_tower = ConfigDict()
    c.item_tower.sources = ("text",)  # of id, text
    c.item_tower.combine = "sum"  # sum | concat | gate
    c.item_tower.pooling = "mean"  # cls | mean | attention | pooler
    c.item_tower.mlp_layers = 0  # hidden, as wide as the encoder, before the projection
    c.item_tower.width = 64  # D of item and user vectors

    c.user_tower = ConfigDict()
    # mean | additive | gru | cnn | transformer (causal) | bert4rec | graph
    c.user_tower.name = "transformer"  # of users.USER_TOWERS
    c.user_tower.position = "relative"  # absolute | relative, of a transformer
    c.user_tower.repeats = False  # mark items that the history had before
    c.user_tower.num_layers = 2  # of units, blocks or steps through the graph
    c.user_tower.num_heads = 2  # of its attention; divides D
    c.user_tower.hidden = 128  # width of the scores of additive
    c.user_tower.kernel_size = 3  # items that a convolution of cnn sees
    c.user_tower.mask_share = 0.2  # of a history that is hidden from bert4rec
    c.user_tower.mlp_ratio = 4  # hidden width of the perceptron / D
    c.user_tower.dropout = 0.2  # of inputs, attention and perceptrons

    c.head = ConfigDict()
    c.head.name = "softmax"  # two_tower (cosine) | softmax (u W v + b)
    c.head.temperature = 1.0  # scores are divided by it; learned in two_tower

    # Baselines whose scores, or the logarithms of chances, are added to the model's.
    c.head.fusion = ()  # names as in eval.baselines, but random
    c.head.fusion_floor = 0.01  # added to chances before the logarithm
    c.head.fusion_weights_grid = (
        0.0,
        0.5,
        1.0,
        1.5,
        2.0,
        3.0,
        4.0,
    )  # validation chooses

    c.loss = ConfigDict()
    c.loss.name = "softmax"  # softmax (cross-entropy) | bce | gbce | rating
    c.loss.negatives_per_positive = (
        1  # of bce and gbce: negatives per target that the loss stands for
    )
    c.loss.gbce_t = 0.75  # t of gbce: 0 = bce
    # all: the catalogue; stale: the same, but only the batch's items are fresh;
    # uniform, popularity: drawn; mixed: in_batch and uniform
    c.loss.negatives = "all"  # all | stale | in_batch | uniform | popularity | mixed
    c.loss.num_negatives = 1024  # drawn for a batch
    c.loss.refresh_steps = 50  # stale: so often, and in every epoch's first step, anew
    c.loss.chunk = 1024  # candidates whose scores are held at a time
    c.loss.smoothing = 0.0  # of softmax: share of the label that all candidates get
    # Weigh in-batch and drawn negatives by 1 / expected count, so that they stand for
    # the whole catalogue, in every loss; False keeps the draw's own distribution.
    c.loss.logq = True  # True | False

    c.optim = ConfigDict()
    c.optim.name = "adamw"  # adamw | sgd | adafactor
    c.optim.b1 = 0.9  # of adamw: decay of the mean of the gradients
    c.optim.b2 = 0.999  # of their squares
    c.optim.eps = 1e-8  # added to the root
    c.optim.momentum = 0.9  # of sgd
    c.optim.clip_norm = 1.0  # of the global gradient norm; 0 = off
    c.optim.weight_decay = 0.01  # times the learning rate
    c.optim.wd_mults = ((r".*/kernel", 1.0), (r".*", 0.0))  # (regex, multiplier)

    c.train = ConfigDict()
    c.train.batch_size = 64  # B, users
    c.train.dtype = "float32"  # of the computation: float32 | bfloat16
    c.train.metric = "ndcg@10"  # on validation, for early stopping and the best state
    c.train.checkpoint_seconds = 60.0  # between two saves
    c.train.keep = 2  # of the newest saves of a phase
    # Skipped are losses that are not finite, and after a phase's first 100 batches:
    c.train.spike = 10.0  # those of so many times the mean so far; 0 = never
    c.train.max_skipped = 10  # with more in a phase the run stops
    c.train.min_spread = 1e-3  # of directions of vectors, below it a warning; 0 = never
    c.train.phases = (phase("towers"),)  # one after the other

    c.eval = ConfigDict()
    c.eval.ks = (1, 5, 10, 20)  # cut-offs of the metrics
    c.eval.batch_size = 256  # users
    c.eval.candidates = 0  # drawn for each target; 0 = all items
    c.eval.mask_seen = True  # what a user had is no candidate, but for the target
    c.eval.bootstrap_samples = 1000  # bootstrap samples of the 95% intervals
    c.eval.like_threshold = 0.0  # ratings from here on are likes; 0 = no such report
    # random | popularity | recent_popularity (fixed splits: by the order of the file) |
    # transitions | repeat_transitions (what came before counts as another item) |
    # item_knn | ease | ials | bpr_mf (pip install implicit) | text (cosines of the
    # encoder's vectors, half whitened); fitted on whole histories and asked, like the
    # model, with the newest data.history_length events
    c.eval.baselines = ("random", "popularity")  # beside every result
    c.eval.zero_shot = True  # evaluate the encoder without training

    c.mesh = ConfigDict()
    c.mesh.data = 1  # devices that share the batch; -1 = all that are left
    c.mesh.model = 1  # devices that share the weights
    c.mesh.rules = (  # (regex, mesh axis per dimension)
        (r".*/(kernel|embedding)", (None, "model")),
        (r".*", ()),
    )

    c.report = ConfigDict()
    c.report.every_steps = 10  # training scalars
    c.report.examples = 5  # users shown with recommendations
    c.report.wandb = ""  # project in Weights & Biases (pip install wandb); "" = none
    c.report.metrics = ("hr@10", "ndcg@10", "mrr@10", "auc")  # columns of the table
    return c.lock()


def phase(name: str, **changes: Any) -> ConfigDict:
    """One phase; on the command line `'--config.train.phases[0].lr=1e-4'`."""
    c = ConfigDict()
    c.name = name  # in tables and logs
    c.epochs = 20  # at most; 0 skips the phase
    c.batch_size = 0  # users; 0 = train.batch_size
    c.epoch_steps = 0  # of an epoch; the next has windows that are left; 0 = all
    c.lr = 1e-3  # peak learning rate, before multipliers
    c.schedule = "constant"  # constant | linear | cosine decay
    c.warmup = 0.0  # share of the phase's steps
    c.patience = 5  # epochs without a better metric; 0 = never stop early
    c.keep = "best"  # state that is tested and passed on: best (on validation) | last
    c.ema = 0.0  # decay per step of the averaged weights that are kept; 0 = off
    c.negatives = ""  # of the kinds that loss.negatives has; "" = that one
    c.lr_mults = freeze("all")  # (regex, multiplier); None = frozen
    c.lock().update(changes)
    return c


def freeze(
    what: str | int, *, layers: int | None = None, encoder: float = 1.0
) -> tuple[tuple[str, float | None], ...]:
    """Rules for the text encoder; everything else trains at multiplier 1.

    Args:
      what: 'all', 'none', 'embeddings', or k to train the top k layers (and what
        pools above them); 'lora' or 'bias' to train nothing else of the encoder (with
        `text.lora_rank`: Hu et al., 2022; BitFit: Ben Zaken et al., 2022).
      layers: of the encoder; needed for k.
      encoder: learning-rate multiplier of the encoder's trained weights.
    """
    rest = (r".*", 1.0)
    if what in ("all", 0):
        return ((ENCODER + r".*", None), rest)
    if what == "none":
        return ((ENCODER + r".*", encoder), rest)
    if what == "embeddings":
        return ((ENCODER + r"embeddings/.*", None), (ENCODER + r".*", encoder), rest)
    if what in ("lora", "bias"):
        leaf = "lora_[ab]" if what == "lora" else "bias"
        trained = (ENCODER + rf".*/{leaf}", encoder)
        return (trained, (ENCODER + r".*", None), rest)
    if not isinstance(what, int) or layers is None or not 0 < what <= layers:
        raise ValueError(f"freeze: {what!r} of {layers} layers")
    top = "|".join(str(i) for i in range(layers - what, layers))
    trained = (ENCODER + rf"(layer_({top})|pool)/.*", encoder)
    return (trained, (ENCODER + r".*", None), rest)
