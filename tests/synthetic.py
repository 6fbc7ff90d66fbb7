"""A tiny deterministic data set with a pattern to learn."""

from pathlib import Path

import numpy as np

GENRES = ("action", "adventure", "drama", "thriller")
NUM_ITEMS = 24  # with events
LENGTH = 9  # events per user
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def write_atomic(folder: Path, *, num_users: int = 40) -> Path:
    """Writes RecBole atomic files, both as one file of events and in fixed splits.

    Item i has genre i mod 4 and a unique title; the last item has no events. A user
    walks through the items of one genre in order, so that the next item follows from
    the last one. Some events have equal times.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    items = ["item_id:token\ttitle:token_seq\tgenre:token_seq"]
    for i in range(NUM_ITEMS + 1):
        title = f"{WORDS[i // 10]} {WORDS[i % 10]}"
        items.append(f"i{i}\t{title}\t{GENRES[i % 4]}")
    users = ["user_id:token\tage:token"]
    users += [f"u{u}\t{20 + u}" for u in range(num_users)]
    events = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    splits = {"train": [header], "valid": [header], "test": [header]}
    for u in range(num_users):
        first = int(rng.integers(NUM_ITEMS // 4))
        walk = [(first + j) % (NUM_ITEMS // 4) * 4 + u % 4 for j in range(LENGTH)]
        for j, i in enumerate(walk):
            events.append(f"u{u}\ti{i}\t{1 + (u + j) % 5}\t{1000 + j // 2}")
        for j in range(1, LENGTH):
            part = {LENGTH - 1: "test", LENGTH - 2: "valid"}.get(j, "train")
            history = " ".join(f"i{i}" for i in walk[:j])
            splits[part].append(f"u{u}\t{history}\ti{walk[j]}")
    files = {"item": items, "user": users, "inter": events}
    files |= {f"{part}.inter": lines for part, lines in splits.items()}
    for kind, lines in files.items():
        text = "\n".join(lines) + "\n"
        Path(f"{folder / folder.name}.{kind}").write_text(text, encoding="utf-8")
    return folder
