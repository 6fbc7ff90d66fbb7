"""Trains RecBole's SASRec; FOLDER has the data set `events`.

Prints the validation NDCG@10 after every epoch, until RecBole's own early stopping.
"""

import json
import logging
import os
import sys

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed


def main() -> None:
    """Trains with the library's defaults for this model."""
    folder, seed = sys.argv[1], int(sys.argv[2])
    os.chdir(folder)  # the library writes its logs to the current directory
    settings = {
        "data_path": folder,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "mode": "full",
            "group_by": "user",
        },
        "train_neg_sample_args": None,  # SASRec's default loss is the full softmax
        "MAX_ITEM_LIST_LENGTH": 50,
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 6,
        "seed": seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
        "checkpoint_dir": folder,
    }
    logging.disable(logging.CRITICAL)
    config = Config(model="SASRec", dataset="events", config_dict=settings)
    init_seed(seed, True)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    init_seed(seed, True)
    model = SASRec(config, train.dataset)

    def report(epoch: int, value: float) -> None:
        print(json.dumps({"epoch": epoch + 1, "ndcg@10": float(value)}), flush=True)

    about = {"examples": len(train.dataset), "users": len(valid.dataset)}
    print(json.dumps(about), flush=True)
    Trainer(config, model).fit(
        train, valid, verbose=False, saved=False, callback_fn=report
    )


main()
