"""Fine-tunes end to end, as public PyTorch trainers do.

Reads a recommender and its batches from FOLDER (written by `step.py`) and measures one
optimizer step. Hugging Face's `BertModel` encodes the item of every position of every
history, padded to the longest text of the batch. The user tower is the same causal
transformer, the loss the same in-batch softmax with logQ and accidental hits removed,
the optimizer torch's AdamW. Layers below the trained ones run without a graph.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertModel

from experiments.benchmarks.serve import serve


class Recommender(nn.Module):
    """BERT, mean pooling, projection; causal transformer; bilinear softmax head."""

    def __init__(self, settings: dict, folder: str):
        super().__init__()
        self.bert = BertModel.from_pretrained(folder, add_pooling_layer=False)
        width = settings["width"]
        self.project = nn.Linear(self.bert.config.hidden_size, width)
        self.position = nn.Parameter(torch.empty(settings["history"], width))
        self.dropout = nn.Dropout(settings["dropout"])
        layer = nn.TransformerEncoderLayer(
            width,
            settings["heads"],
            settings["mlp_ratio"] * width,
            settings["dropout"],
            activation=lambda x: F.gelu(x, approximate="tanh"),
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            layer,
            settings["layers"],
            nn.LayerNorm(width, eps=1e-6),
            enable_nested_tensor=False,
        )
        self.bilinear = nn.Linear(width, width, bias=False)
        self.bias = nn.Embedding(settings["items"], 1)

    def encode_items(self, ids, mask):
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        mask = mask[..., None]
        return self.project((states * mask).sum(1) / mask.sum(1))

    def encode_users(self, history, mask):
        length = history.shape[1]
        x = self.dropout(history + self.position)
        future = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
        # A padded query would attend to nothing and become NaN: let it see itself.
        blocked = future[None] | ~mask[:, None, :]
        blocked &= ~torch.eye(length, dtype=torch.bool)[None]
        blocked = blocked.repeat_interleave(
            self.blocks.layers[0].self_attn.num_heads, 0
        )
        return self.blocks(x, mask=blocked)


def load(model: Recommender, folder: Path) -> None:
    """Sets the towers to the initial weights of recjax."""
    w = {k: torch.from_numpy(v) for k, v in np.load(folder / "weights.npz").items()}
    linear = {"mlp_up": "linear1", "mlp_down": "linear2"}
    linear["attention/output"] = "self_attn.out_proj"
    norms = {"attention_norm": "norm1", "mlp_norm": "norm2"}
    state = {
        "project.weight": w["items/text/project/kernel"].T,
        "project.bias": w["items/text/project/bias"],
        "position": w["users/position"],
        "blocks.norm.weight": w["users/norm/scale"],
        "blocks.norm.bias": w["users/norm/bias"],
        "bilinear.weight": w["head/bilinear/kernel"].T,
        "bias.weight": w["head/bias"][:, None],
    }
    for i in range(len(model.blocks.layers)):
        ours, theirs = f"users/block_{i}/", f"blocks.layers.{i}."
        for a, b in linear.items():
            state[f"{theirs}{b}.weight"] = w[f"{ours}{a}/kernel"].T
            state[f"{theirs}{b}.bias"] = w[f"{ours}{a}/bias"]
        for a, b in norms.items():
            state[f"{theirs}{b}.weight"] = w[f"{ours}{a}/scale"]
            state[f"{theirs}{b}.bias"] = w[f"{ours}{a}/bias"]
        for part, kind in (("weight", "kernel"), ("bias", "bias")):
            names = [f"{ours}attention/{n}/{kind}" for n in ("query", "key", "value")]
            # Kernels are inputs x outputs here, outputs x inputs there.
            qkv = torch.cat([w[name] for name in names], dim=-1)
            state[f"{theirs}self_attn.in_proj_{part}"] = qkv.t()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith("bert.") for name in missing), missing


def compute_loss(model: Recommender, texts: list, batch: dict) -> torch.Tensor:
    """Returns the mean in-batch softmax loss over all targets of the batch."""
    window, mask = batch["window"], batch["mask"]  # history and last target
    # As IDvs.MoRec's public trainer does, a position without an item has a text too.
    encoded = mask if batch["skip_padding"] else torch.ones_like(mask)
    pad = torch.zeros(1, dtype=torch.long)
    positions = zip(window[encoded].tolist(), mask[encoded].tolist(), strict=True)
    chosen = [texts[item] if has_item else pad for item, has_item in positions]
    lengths = torch.tensor([len(text) for text in chosen])
    ids = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
    present = torch.arange(ids.shape[1])[None] < lengths[:, None]
    vectors = model.encode_items(ids, present.to(torch.float32))
    window_vectors = vectors.new_zeros(*window.shape, vectors.shape[-1])
    window_vectors[encoded] = vectors

    users = model.encode_users(window_vectors[:, :-1], mask[:, :-1])
    num_targets = batch["num_targets"]
    is_target = mask[:, -num_targets:] & mask[:, -num_targets - 1 : -1]
    queries = model.bilinear(users[:, -num_targets:][is_target])
    targets = window[:, -num_targets:][is_target]
    candidates = window_vectors[:, -num_targets:][is_target]
    logits = queries @ candidates.T + model.bias(targets)[:, 0]
    logits = logits - batch["log_expected"][targets]
    # The target competes with every other target of the batch but its own copies.
    same = targets[:, None] == targets[None, :]
    own = (queries * candidates).sum(-1) + model.bias(targets)[:, 0]
    logits = logits.masked_fill(same, -torch.inf)
    return (torch.logaddexp(own, torch.logsumexp(logits, 1)) - own).mean()


def main() -> None:
    """Reports the loss without dropout, then measures steps over the batches."""
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "about.json").read_text())
    torch.manual_seed(0)
    arrays = np.load(folder / "data.npz")
    flat, offsets = torch.from_numpy(arrays["ids"].astype(np.int64)), arrays["offsets"]
    texts = [flat[a:b] for a, b in itertools.pairwise(offsets)]
    batches = [
        {
            "window": torch.from_numpy(arrays[f"window_{i}"].astype(np.int64)),
            "mask": torch.from_numpy(arrays[f"mask_{i}"]),
            "num_targets": settings["num_targets"],
            "skip_padding": settings["skip_padding"],
            "log_expected": torch.from_numpy(arrays["log_expected"]),
        }
        for i in range(settings["batches"])
    ]
    model = Recommender(settings, settings["encoder"])
    load(model, folder)
    model.eval()
    with torch.no_grad():
        plain = compute_loss(model, texts, batches[0]).item()

    model.train()
    top = settings["trained_layers"]
    if top is not None:
        model.bert.requires_grad_(False)
        model.bert.embeddings.eval()  # frozen layers have no dropout
        layers = model.bert.encoder.layer
        for layer in layers[: len(layers) - top]:
            layer.eval()
        for layer in layers[len(layers) - top :]:
            layer.requires_grad_(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["lr"], weight_decay=0.01)
    turn = iter(range(10**9))

    def step() -> dict:
        batch = batches[next(turn) % len(batches)]
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = compute_loss(model, texts, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return {"seconds": time.perf_counter() - start, "loss": loss.item()}

    serve({"loss": plain, "threads": torch.get_num_threads()}, step)


main()
