"""Damaged and hostile encoder directories, for the tests and for a comparison.

    pip install torch==2.13.0 transformers
    python -m tests.faults.encoders

reads each of them with recjax and with transformers' torch model, and lists those that
both read, but not alike.
"""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from recjax.common.errors import UserError
from recjax.common.param_paths import FlatParams, flatten_params, unflatten_params
from recjax.data.text.tokenize import tokenize
from recjax.models.encoders.base import EncoderConfig
from recjax.models.encoders.directory import transformer_folder
from recjax.models.encoders.huggingface import load_config, load_params

FIXTURES = Path(__file__).parents[1] / "fixtures"
ENCODERS = ("tiny_bert", "tiny_roberta", "tiny_distilbert")
TEXTS = json.loads((FIXTURES / "texts.json").read_text(encoding="utf-8"))
WEIGHTS = "model.safetensors"
SEEDS = range(220)  # for each encoder
NASTY: tuple[Any, ...] = (
    *(None, True, False, "", "x", "16", [], {}, [1], {"a": 1}),
    *(0, -1, 1, 3, 17, 2**31, 2**63, 10**30, 0.5, -0.1, 1.0, 1e308, float("nan")),
)
Rng = random.Random


def run_blocks(bert: Any, ids_RxL: Any, position_RxL: Any, segment_RxL: Any) -> Any:
    """Runs all blocks but the pooling: states_RxLxE."""
    states = bert.embed(ids_RxL, position_RxL)
    return bert.run(states, segment_RxL, 1, bert.config.num_blocks - 1)


def read(folder: Path) -> tuple[Any, FlatParams, list[list[int]]]:
    """Reads a directory as a run does: the encoder, its weights and the token ids.

    Raises:
      UserError: the directory is refused.
    """
    folder = transformer_folder(folder)
    config = load_config(folder)
    tokens = tokenize(TEXTS, folder, max_tokens=32, vocab_size=config.vocab_size)
    params = load_params(folder, shapes_of(config))
    bounds = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    ids = [tokens.ids[start:end].tolist() for start, end in bounds]
    return config.make_encoder(jnp.float32, 0), params, ids


@cache
def shapes_of(config: EncoderConfig) -> FlatParams:
    """Returns the shapes of the parameters of an encoder."""
    bert = config.make_encoder(jnp.float32, 0)
    row = jnp.zeros((1, 4), jnp.int32)
    init = partial(bert.init, method=run_blocks)
    return flatten_params(
        jax.eval_shape(init, jax.random.key(0), row, row, row)["params"]
    )


def flip_byte(folder: Path, rng: Rng) -> None:
    """Changes a byte of a file."""
    path = rng.choice(sorted(folder.iterdir()))
    content = bytearray(path.read_bytes())
    # The header of the weights is a small part of the file.
    end = min(len(content), 2000) if rng.random() < 0.7 else len(content)
    content[rng.randrange(end)] = rng.randrange(256)
    path.write_bytes(content)


def cut(folder: Path, rng: Rng) -> None:
    """Truncates a file, or writes other bytes behind it."""
    path = rng.choice(sorted(folder.iterdir()))
    content = path.read_bytes()
    more = rng.choice([b"", b"\0" * 100, b"}", content])
    path.write_bytes(content[: rng.randrange(len(content) + 1)] + more)


def change_value(folder: Path, rng: Rng) -> None:
    """Replaces, removes or repeats a value in a JSON file."""
    path = folder / rng.choice(["config.json", "config.json", "tokenizer.json"])
    content = json.loads(path.read_text(encoding="utf-8"))
    parent = content
    while True:
        key = rng.choice(
            list(parent) if isinstance(parent, dict) else [*range(len(parent))]
        )
        below = parent[key]
        if not (isinstance(below, dict | list) and below) or rng.random() < 0.2:
            break
        parent = below
    if rng.random() < 0.2:
        del parent[key]
    else:
        parent[key] = rng.choice(NASTY)
    path.write_text(json.dumps(content), encoding="utf-8")


def change_weights(folder: Path, rng: Rng) -> None:
    """Drops, renames, repeats, reshapes or spoils a weight."""
    path = folder / WEIGHTS
    weights = load_file(path)
    name = rng.choice(sorted(weights))
    value = weights[name]
    changes: list[Callable[[], Any]] = [
        lambda: weights.pop(name),
        lambda: weights.update({name + "_": weights.pop(name)}),
        lambda: weights.update({"bert." + name: value}),
        lambda: weights.update({name.removeprefix("roberta."): value + 1}),
        lambda: weights.update({name: np.ascontiguousarray(value.T)}),
        lambda: weights.update({name: value[..., :-1].copy()}),
        lambda: weights.update({name: value[None]}),
        lambda: weights.update({name: value.astype(np.float16)}),
        lambda: weights.update({name: value.astype(np.float64)}),
        lambda: weights.update({name: value.astype(np.int32)}),
        lambda: weights.update({name: value > 0}),
        lambda: weights.update({name: np.full_like(value, np.nan)}),
        lambda: weights.update({name: np.full_like(value, -np.inf)}),
        lambda: weights.update({"extra.weight": value}),
        lambda: weights.update({"classifier.weight": value}),
        lambda: weights.clear(),
    ]
    rng.choice(changes)()
    save_file(weights, path)


def change_files(folder: Path, rng: Rng) -> None:
    """Replaces a file by something else, or adds one of another tool."""
    path = rng.choice(sorted(folder.iterdir()))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    index = {"weight_map": {"a": rng.choice(["../x", "none.safetensors", 3])}}
    modules = [{"type": rng.choice(["a.Pooling", "a.Dense", 3]), "path": "1_Pooling"}]

    def replace(make: Callable[[Path], Any]) -> None:
        path.unlink()
        make(path)

    def move_weights() -> None:
        (folder / WEIGHTS).unlink()
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))

    changes: list[Callable[[], Any]] = [
        path.unlink,
        lambda: replace(Path.mkdir),
        lambda: replace(os.mkfifo),
        lambda: replace(lambda p: p.symlink_to(p.name)),
        lambda: replace(lambda p: p.symlink_to("/dev/zero")),
        lambda: replace(lambda p: p.write_bytes(b"")),
        lambda: replace(lambda p: p.write_bytes(pointer)),
        lambda: replace(lambda p: p.write_text("[" * 10**5)),
        lambda: replace(lambda p: p.write_text("9" * 10**5)),
        lambda: path.write_bytes("é".encode("utf-16") + path.read_bytes()),
        lambda: (folder / "modules.json").write_text(json.dumps(modules)),
        lambda: (folder / "modules.json").write_text("{}"),
        lambda: (folder / "tokenizer_config.json").write_text('{"do_lower_case": 3}'),
        lambda: (folder / "tokenizer_config.json").write_text("["),
        move_weights,
    ]
    rng.choice(changes)()


DAMAGES = (flip_byte, cut, change_value, change_value, change_weights, change_files)


def damaged(seeds: Sequence[int] = SEEDS) -> Iterator[tuple[str, Path]]:
    """Yields the name of each damage, and a directory that has it until the next."""
    for encoder in ENCODERS:
        for seed in seeds:
            rng = Rng(f"{encoder} {seed}")
            damage = DAMAGES[seed % len(DAMAGES)]
            with tempfile.TemporaryDirectory() as parent:
                folder = Path(parent) / encoder
                shutil.copytree(FIXTURES / encoder, folder)
                damage(folder, rng)
                yield f"{encoder}, {damage.__name__}, seed {seed}", folder


def compare() -> None:
    """Compares recjax with transformers on every directory that both read."""
    counts = dict.fromkeys(("refused", "alike", "read by recjax only"), 0)
    for name, folder in damaged():
        try:
            bert, params, ids = read(folder)
        except UserError:
            counts["refused"] += 1
            continue
        try:
            differences = list(differ(folder, bert, params, ids))
        except Exception as e:  # transformers raises many kinds
            counts["read by recjax only"] += 1
            print(f"{name}: transformers: {type(e).__name__}: {str(e)[:150]}")
            continue
        counts["alike"] += not differences
        if differences:
            print(f"{name}: {', '.join(differences)}")
    print(counts)


def differ(
    folder: Path, bert: Any, params: FlatParams, ids: list[list[int]]
) -> Iterator[str]:
    """Yields in what transformers differs from what `read` returned."""
    import torch
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    arguments = {"truncation": True, "max_length": 32}
    if ids != [tokenizer(text, **arguments)["input_ids"] for text in TEXTS]:
        yield "token ids"
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    variables = {"params": unflatten_params(params)}
    for text_ids in ids:
        row = np.array([text_ids])
        positions = np.arange(row.size)[None]
        inputs = row, positions, np.ones_like(row)
        ours = bert.apply(variables, *inputs, method=run_blocks)
        with torch.no_grad():
            expected = theirs(torch.from_numpy(row)).last_hidden_state.numpy()
        if not np.allclose(ours, expected, 1e-4, 1e-4, equal_nan=True):
            yield "outputs"
            return


if __name__ == "__main__":
    compare()
