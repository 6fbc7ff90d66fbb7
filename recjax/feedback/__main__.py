"""Learns from the events of a service, and promotes the result if it is not worse.

    python -m recjax.feedback --model=runs/shop --events=events.sqlite
    python -m recjax.feedback --model=runs/shop --rollback

Takes the events since the model was made, fine-tunes from its weights, compares both on
the newest events, and makes the candidate the model if its mean is not lower. A service
takes it over by POST /reload.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recjax.command import make_parser, run_command
from recjax.common.errors import UserError
from recjax.common.files import user_path
from recjax.common.hub import is_hub_id
from recjax.runtime.host_memory import restart_with_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and learns."""
    parser = make_parser("feedback", __doc__)
    parser.add_argument("--events", help="SQLite file, or redis://HOST:PORT/DB")
    parser.add_argument("--rollback", action="store_true", help="undo a promotion")
    parser.add_argument("--epochs", type=int, default=10, help="at most (10)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (1e-3)")
    parser.add_argument(
        "--encoder_layers", type=int, default=0, help="top layers to train too (0)"
    )
    parser.add_argument(
        "--fraction", type=float, default=0.3, help="of new events to compare on (0.3)"
    )
    parser.add_argument(
        "--min_events", type=int, default=100, help="fewer are left for later (100)"
    )
    parser.add_argument("--metric", default="ndcg@10", help="of the comparison")
    parser.add_argument("--keep", type=int, default=3, help="versions to keep (3)")
    parser.add_argument(
        "--no_promotion", action="store_true", help="only compare, change nothing"
    )
    parser.add_argument("--workdir", help="keep data and run in this new directory")
    run_command(parser, feedback, argv)


def feedback(options: Any) -> None:
    """Runs the command.

    Raises:
      UserError: options out of range, or a model or store that cannot be read.
    """
    for name in ("epochs", "min_events", "keep"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name}: {getattr(options, name)} is not at least 1")
    if not 0 < options.fraction < 0.6:
        raise UserError(f"--fraction: {options.fraction} is not between 0 and 0.6")
    from recjax.feedback.promotion import model_lock, roll_back

    if not options.rollback and not options.events:
        raise UserError("--events: is required")
    if options.no_promotion and not options.rollback:
        _learn(options)
        return
    place = _local_model(options.model)
    with model_lock(place):
        if options.rollback:
            print(f"the model is version {roll_back(place)} again")
        else:
            _learn(options)


def _local_model(name: str) -> Path:
    """Returns the directory of a model whose versions may be changed.

    Raises:
      UserError: it is not a model, or not in a local directory.
    """
    from recjax.inference.files import find_manifest, locate_model

    if is_hub_id(name):
        raise UserError(
            f"--model: {name}: only a model in a local directory can be promoted; save "
            "a copy with save_pretrained"
        )
    place = locate_model(name)
    find_manifest(place)
    return place


def _learn(options: Any) -> None:
    """Learns, and prints the outcome.

    Raises:
      UserError: the model, the store or the working directory cannot be used.
    """
    from recjax.feedback.learn import Settings, learn
    from recjax.serving.open_store import open_store
    from recjax.serving.store import StoreError

    store = open_store(options.events, "--events", create=False)
    settings = Settings(
        options.epochs,
        options.lr,
        options.encoder_layers,
        options.fraction,
        options.min_events,
        options.metric,
        options.keep,
        not options.no_promotion,
    )
    try:
        with tempfile.TemporaryDirectory() as tmp:
            folder = Path(tmp)
            if options.workdir:
                folder = user_path(options.workdir, "--workdir")
            if folder.exists() and any(folder.iterdir()):
                raise UserError(f"--workdir: {folder}: is not empty")
            outcome = learn(options.model, store, folder, settings)
    except StoreError as e:
        raise UserError(f"--events: {e}") from None
    finally:
        store.close()
    if outcome is None:
        print(f"fewer than {options.min_events} new events: nothing is learned")
        return
    if not options.workdir:
        print("the run above is not kept; --workdir=DIR keeps it")
    x = outcome.difference
    print(
        f"{outcome.events:,} new events; {options.metric} on the newest "
        f"{outcome.compared:,}: {outcome.incumbent:.4f} before, "
        f"{outcome.candidate:.4f} after, difference {x['value']:+.4f} "
        f"[{x['low']:+.4f}, {x['high']:+.4f}]"
    )
    if outcome.promoted:
        print(f"promoted: {options.model} is version {outcome.promoted} now")
    else:
        print("the model stays as it was")


if __name__ == "__main__":
    restart_with_settings()
    main()
