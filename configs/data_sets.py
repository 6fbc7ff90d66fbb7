"""Settings of each data set that its configs share: columns, texts, evaluation."""

from ml_collections import ConfigDict


def ml100k(config: ConfigDict) -> None:
    """MovieLens 100K by title, year and genres: leave-one-out, seen items masked."""
    config.data.rating = "rating"
    config.data.user_table = True
    config.eval.like_threshold = 4.0


def amazon_industrial(config: ConfigDict) -> None:
    """Amazon Industrial by title and brand, seen items not masked.

    These are the data of 2018 as MiniOneRec splits them: by global time, with histories
    of at most ten items. `data.source` is a directory with
    `amazon-industrial.{train,valid,test}.inter` and `.item` in RecBole's atomic format.
    """
    config.data.source = "amazon-industrial"
    config.data.split = "fixed"
    config.data.time = ""
    config.data.history_length = 10
    config.text.template = "{title}. {brand}"
    config.text.title = "{title}"
    config.text.max_tokens = 64
    config.text.row_tokens = 128
    config.eval.mask_seen = False
    # A batch contains users, each with all of their targets.
    config.train.batch_size = 64


def amazon_beauty(config: ConfigDict) -> None:
    """Amazon Beauty by title: leave-one-out, seen items masked, histories of 20.

    `data.source` is a directory with `amazon-beauty.inter` and `.item` in RecBole's
    atomic format: the 5-core data of 2014 that S3-Rec distributes, with titles.
    """
    config.data.source = "amazon-beauty"
    config.data.history_length = 20
    config.text.template = "{title}"
    config.text.title = "{title}"
    config.text.max_tokens = 48
    config.train.batch_size = 256
