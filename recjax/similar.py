"""Finds similar items with a trained model.

python -m recjax.similar --model=runs/shop --items="242 302" --k=5
python -m recjax.similar --model=runs/shop --text="A film about the sea"
"""

from collections.abc import Sequence
from typing import Any

from recjax.command import (
    check_output,
    make_parser,
    run_command,
    show_frame,
    write_frame,
)
from recjax.common.errors import UserError
from recjax.runtime.host_memory import restart_with_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and finds similar items."""
    parser = make_parser("similar", __doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--items", help='ids with spaces between, or "all"')
    what.add_argument("--text", help="text of an item that need not exist")
    parser.add_argument("--k", type=int, default=10, help="number of items (10)")
    parser.add_argument("--out", help="file for the result: .csv or .parquet")
    run_command(parser, similar, argv)


def similar(options: Any) -> None:
    """Runs the command.

    Raises:
      UserError: unknown items, or a file that cannot be written.
    """
    out = check_output(options.out)
    import recjax

    model = recjax.load(options.model)
    if options.text is not None:
        found, label = model.similar(texts=[options.text], k=options.k), "text"
    else:
        everything = options.items == "all"
        items = model.items["id"] if everything else options.items.split()
        if not len(items):
            raise UserError("--items: names no item")
        found, label = model.similar(items, k=options.k), "item"
    if out is None:
        show_frame(found, label)
    else:
        write_frame(found, out)
        print(f"{len(found):,} rows: {out}")


if __name__ == "__main__":
    restart_with_settings()
    main()
