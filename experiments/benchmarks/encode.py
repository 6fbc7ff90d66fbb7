"""Compares encoding a catalogue with sentence-transformers.

    python -m experiments.benchmarks.encode --data=DIR/amazon-industrial

Measures texts to mean-pooled vectors, including tokenization on both sides. Also prints
how close the encoder comes to the machine's rate of float32 matrix products.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.benchmarks import duel
from experiments.benchmarks.serve import serve
from recjax.config import base
from recjax.data.ingest.sources import locate_encoder
from recjax.data.text.tokenize import tokenize
from recjax.models.encoders.bert import BertConfig
from recjax.run.setup import open_run


def config_for(data: str, max_tokens: int) -> ConfigDict:
    """Returns a config with title, brand and description of amazon-industrial."""
    config = base.get_config()
    config.data.source, config.data.split = data, "fixed"
    config.text.template = "{title}. {brand}. {description}"
    config.text.title = "{title}"
    config.text.max_tokens = max_tokens
    return config


def work(args: argparse.Namespace) -> None:
    """Writes the texts for the peer, then measures our side."""
    config = config_for(args.data, args.max_tokens)
    with open_run(config, args.folder, time.perf_counter()) as (run, params):
        assert run.tokens is not None
        texts = run.data.render(config.text.template, "text.template")
        encoder = locate_encoder(config.text.encoder)
        about = {"texts": texts, "encoder": str(encoder), "max_tokens": args.max_tokens}
        (args.folder / "texts.json").write_text(json.dumps(about))
        bert = run.model.encoder_config
        assert isinstance(bert, BertConfig)
        prefix_encoder = run.catalogue.prefix_encoder
        assert prefix_encoder is not None
        encode_all = prefix_encoder.compile(run.model, bert.num_blocks)

        def encode() -> dict[str, Any]:
            start = time.perf_counter()
            tokenize(
                texts, encoder, max_tokens=args.max_tokens, vocab_size=bert.vocab_size
            )
            vectors_NxE = encode_all(params, np.zeros)
            seconds = time.perf_counter() - start
            np.save(args.folder / "ours.npy", vectors_NxE)
            return {"seconds": seconds}

        lengths = run.tokens.lengths
        width, layers = bert.hidden_size, bert.num_hidden_layers
        weights = 4 * width**2 + 2 * width * bert.intermediate_size  # of a layer
        flops = 2 * layers * weights * int(lengths.sum())  # products with weights
        flops += 4 * layers * width * int((lengths**2).sum())  # attention
        encode()  # compiles
        serve(
            {"flops": flops, "items": len(texts), "folder": str(args.folder)},
            lambda: {**encode(), "product": product_rate()},
        )


def product_rate(repeats: int = 20) -> float:
    """Returns the FLOP/s of the encoder's largest matrix product."""
    a, b = jnp.ones((2048, 384)), jnp.ones((384, 1536))
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(a, b).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * 2048 * 384 * 1536 / statistics.median(times)


def main() -> None:
    """Runs both sides and prints a Markdown row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="directory amazon-industrial")
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return work(args)
    name = "sentence_transformers_encode"
    with duel.workers("encode", name, "torch") as (ours, peer):
        folder = Path(ours.about["folder"])
        a, b = (np.load(folder / f"{name}.npy") for name in ("ours", "theirs"))
        np.testing.assert_allclose(a, b, atol=1e-4)
        times = duel.duel(ours, peer, args.repeats)
        rate = ours.measure()["product"]
    num_items = ours.about["items"]
    our_seconds, peer_seconds = map(statistics.median, (times.ours, times.peer))
    print(
        duel.row(
            f"encode {num_items:,} items, at most {args.max_tokens} tokens, float32",
            f"{num_items / our_seconds:.0f} items/s, "
            f"{ours.about['flops'] / our_seconds / 1e9:.0f} of {rate / 1e9:.0f} "
            "GFLOP/s",
            f"sentence-transformers {num_items / peer_seconds:.0f} items/s "
            f"(batches of {peer.about['batch_size']})",
            times.ratio,
            1,
        )
    )


if __name__ == "__main__":
    main()
