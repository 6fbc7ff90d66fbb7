"""Encodes texts with sentence-transformers; FOLDER has `texts.json`."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer, models

from experiments.benchmarks.serve import serve


def main() -> None:
    """Chooses the best batch size on some texts, then measures all."""
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "texts.json").read_text())
    transformer = models.Transformer(
        settings["encoder"], max_seq_length=settings["max_tokens"]
    )
    pooling = models.Pooling(transformer.get_word_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu")

    def seconds(texts: list, batch_size: int) -> float:
        start = time.perf_counter()
        vectors = model.encode(texts, batch_size=batch_size, show_progress_bar=False)
        assert vectors.shape == (len(texts), 384)
        return time.perf_counter() - start

    part = settings["texts"][:512]
    seconds(part, 32)
    sizes = {size: seconds(part, size) for size in (8, 16, 32, 64, 128)}
    best = min(sizes, key=lambda size: sizes[size])
    np.save(folder / "theirs.npy", model.encode(settings["texts"], batch_size=best))
    about = {
        "batch_size": best,
        "versions": [sentence_transformers.__version__, torch.__version__],
    }
    serve(about, lambda: {"seconds": seconds(settings["texts"], best)})


main()
