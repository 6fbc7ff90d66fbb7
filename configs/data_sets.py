"""What every config says of a data set: data, texts, the test, users of a batch."""

from ml_collections import ConfigDict


def ml100k(c: ConfigDict) -> None:
    """MovieLens 100K by title, year and genres: leave-one-out, seen items masked."""
    c.data.rating, c.data.user_table = "rating", True
    c.eval.like_threshold = 4.0


def amazon_industrial(c: ConfigDict) -> None:
    """Amazon Industrial by title and brand, as MiniOneRec splits the set of 2018: by
    global time, with histories of at most ten items, seen items not masked.

    `data.source` is a directory of that name, with
    `amazon-industrial.{train,valid,test}.inter` and `.item` in RecBole's atomic format.
    """
    c.data.source = "amazon-industrial"
    c.data.split, c.data.time = "fixed", ""
    c.data.history_length = 10
    c.text.template, c.text.title = "{title}. {brand}", "{title}"
    c.text.max_tokens, c.text.row_tokens = 64, 128
    c.eval.mask_seen = False
    c.train.batch_size = 64  # users, each with all that they are asked for


def amazon_beauty(c: ConfigDict) -> None:
    """Amazon Beauty by title: leave-one-out, seen items masked, histories of 20.

    `data.source` is a directory with `amazon-beauty.inter` and `.item` in RecBole's
    atomic format: the 5-core set of 2014 that S3-Rec distributes, with titles.
    """
    c.data.source = "amazon-beauty"
    c.data.history_length = 20
    c.text.template = c.text.title = "{title}"
    c.text.max_tokens = 48
    c.train.batch_size = 256
