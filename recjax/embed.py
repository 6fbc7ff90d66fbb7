"""Writes the vectors of items: those of the catalogue, or of new items by their texts.

    python -m recjax.embed --model=runs/shop --out=vectors.parquet
    python -m recjax.embed --model=runs/shop --items=new.csv --out=vectors.parquet

A user's score of an item is the dot product of their vectors plus the bias of the item.
"""

from collections.abc import Sequence
from typing import Any

from recjax.command import (
    check_output,
    make_parser,
    read_new_items,
    run_command,
    write_frame,
)
from recjax.runtime.host_memory import restart_with_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and writes vectors."""
    parser = make_parser("embed", __doc__)
    parser.add_argument("--items", help="a file with the texts of new items")
    parser.add_argument("--out", required=True, help="file for the vectors: .parquet")
    run_command(parser, embed, argv)


def embed(options: Any) -> None:
    """Runs the command.

    Raises:
      UserError: a file that cannot be read or written, or a model of ids alone.
    """
    out = check_output(options.out, [".parquet"])
    assert out is not None  # the option is required
    import recjax

    model = recjax.load(options.model)
    number = len(model.items)
    if options.items:
        column = model.parts.config.data.item
        model.add_items(read_new_items(options.items, column))
    else:
        number = 0
    vectors = model.parts.vectors
    found = model.items[number:].select("id", "title", "state")
    found = found.with_columns(
        vector=vectors.candidates_NxD[number:], bias=vectors.bias_N[number:]
    )
    write_frame(found, out)
    print(f"{len(found):,} items: {out}")


if __name__ == "__main__":
    restart_with_settings()
    main()
