"""Measures RecTools' SASRec; FOLDER has `events.npz` and `about.json`.

Measures training epochs or `recommend` for every user, as `about.json` says.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning
import rectools
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

from experiments.benchmarks.serve import serve


class Clock(pytorch_lightning.Callback):
    """Measures the seconds of the last epoch, including its batches."""

    def on_train_epoch_start(self, *args) -> None:
        """Starts the timer."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *args) -> None:
        """Stops the timer."""
        self.seconds = time.perf_counter() - self.start


def main() -> None:
    """Fits once, then measures."""
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "about.json").read_text())
    events = np.load(folder / "events.npz")
    frame = pd.DataFrame(
        {
            Columns.User: events["users"],
            Columns.Item: events["items"],
            Columns.Weight: 1.0,
            # Any increasing time: the events are in order.
            Columns.Datetime: pd.to_datetime(np.arange(len(events["users"])), unit="s"),
        }
    )
    dataset = Dataset.construct(frame)

    def trainer() -> pytorch_lightning.Trainer:
        return pytorch_lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Clock()],
        )

    torch.manual_seed(0)
    model = SASRecModel(
        n_blocks=settings["layers"],
        n_heads=settings["heads"],
        n_factors=settings["width"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["history"],
        lr=settings["lr"],
        batch_size=settings["batch_size"],
        loss=settings["loss"],
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=trainer,
    )
    model.fit(dataset)
    users = np.unique(events["users"])

    def epoch() -> dict:
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        callbacks = model.fit_trainer.callbacks  # the model uses a copy of its trainer
        (clock,) = (x for x in callbacks if isinstance(x, Clock))
        return {"seconds": clock.seconds}

    def recommend() -> dict:
        start = time.perf_counter()
        found = model.recommend(users, dataset, k=settings["k"], filter_viewed=True)
        seconds = time.perf_counter() - start
        assert len(found) == len(users) * settings["k"]
        return {"seconds": seconds}

    measure = {"epoch": epoch, "recommend": recommend}[settings["measure"]]
    versions = [rectools.__version__, torch.__version__]
    weights = sum(p.numel() for p in model.lightning_model.parameters())
    serve({"versions": versions, "weights": weights, "users": len(users)}, measure)


main()
