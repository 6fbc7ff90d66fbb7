"""Recommends items with a trained model.

    python -m recjax.recommend --model=runs/shop --users=all --out=lists.csv
    python -m recjax.recommend --model=runs/shop --history="242 302 51"

The lists go to a CSV or Parquet file, or to the console. With --users=all the same
command again continues where it was interrupted.
"""

from collections.abc import Sequence
from typing import Any

from recjax.command import (
    check_output,
    make_parser,
    read_frame,
    read_new_items,
    run_command,
    show_frame,
    write_frame,
)
from recjax.common.errors import UserError
from recjax.common.files import user_path
from recjax.runtime.host_memory import restart_with_settings

CHUNK = 4096  # users whose lists are saved at a time
USER, ITEM = "user", "item"  # columns of files, if those of the data are not there


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and recommends."""
    parser = make_parser("recommend", __doc__)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--users",
        help='"all", or a file with a column of users, named as in the data or "user"; '
        "a file with items too is read as their histories",
    )
    who.add_argument(
        "--history", help="ids of items, oldest first, with spaces between"
    )
    parser.add_argument("--items", help="a file with items to add to the catalogue")
    parser.add_argument(
        "--among", help="a file with a column of the items to choose from"
    )
    parser.add_argument("--k", type=int, default=10, help="length of the lists (10)")
    parser.add_argument(
        "--include_seen", action="store_true", help="recommend items of the history too"
    )
    parser.add_argument("--out", help="file for the lists: .csv or .parquet")
    run_command(parser, recommend, argv)


def recommend(options: Any) -> None:
    """Runs the command.

    Raises:
      UserError: unknown users or items, or a file that cannot be read or written.
    """
    out = check_output(options.out)
    if options.k < 1:
        raise UserError(f"--k: {options.k} is not at least 1")
    import recjax
    from recjax.inference.batches import recommend_all

    model = recjax.load(options.model)
    data = model.parts.config.data
    if options.items:
        model.add_items(read_new_items(options.items, data.item))
    among = None
    if options.among:
        ids = {data.item: ITEM}
        among = read_frame(options.among, "--among", ids, [data.item])
        among = among[data.item].to_list()
    settings = {
        "k": options.k,
        "exclude_seen": not options.include_seen,
        "among": among,
    }
    if options.history is not None:
        history = options.history.split()
        known = set(model.items["id"])
        if unknown := [item for item in history if item not in known]:
            raise UserError(f"--history: no item {unknown[0]!r} in the catalogue")
        found, label = model.recommend(histories=[history], **settings), "query"
    elif options.users == "all" and out is not None:
        recommend_all(model, out, CHUNK, settings)
        return
    else:
        label = "user"
        if options.users == "all":
            found = model.recommend(users="all", **settings)
        else:
            found = _from_file(model, options.users, settings)
    if out is None:
        show_frame(found, label)
    else:
        write_frame(found, out)
        print(f"{len(found):,} rows: {out}")


def _from_file(model: Any, name: str, settings: dict[str, Any]) -> Any:
    """Recommends to the users of a file, by their histories if it has any."""
    data = model.parts.config.data
    if not user_path(name, "--users").exists():
        raise UserError(f"--users: {name}: is neither 'all' nor a file")
    ids = {data.user: USER, data.item: ITEM}
    frame = read_frame(name, "--users", ids, [data.user], data.time)
    if data.item in frame.columns:
        return model.recommend(histories=frame, **settings)
    users = frame[data.user].unique(maintain_order=True).to_list()
    return model.recommend(users=users, **settings)


if __name__ == "__main__":
    restart_with_settings()
    main()
