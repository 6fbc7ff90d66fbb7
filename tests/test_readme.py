"""The code on the README's page runs as it stands there."""

import ast
import re
from pathlib import Path

import numpy as np

from experiments.sweeping.load import load_sweep, resolve
from recjax import baselines
from recjax.config import base
from recjax.config.validate import check_config
from recjax.data.splits import load_data
from recjax.losses import LOSSES, softmax
from recjax.models import users
from recjax.models.encoders.huggingface import load_config
from recjax.models.items.text_source import count_frozen_blocks
from recjax.models.recommender import make_model
from recjax.run import train
from recjax.training import optimizer
from recjax.training.initial_params import trace_init

BLOCKS = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)


def block(start):
    (code,) = [b for b in BLOCKS if start in b]
    return code


def test_own_tower_and_loss(config, tmp_path, monkeypatch):
    monkeypatch.setitem(users.USER_TOWERS, "max", None)  # taken out again afterwards
    monkeypatch.setitem(LOSSES, "focal", None)
    exec(block("class MaxTower"), vars(users))
    exec(block("def focal"), vars(softmax))
    c = config.unlock()
    c.user_tower.name, c.loss.name = "max", "focal"
    c.item_tower.sources = ("id", "text")
    c.train.phases = (base.phase("p", epochs=8, lr=1e-2),)
    final = train.run(c.lock(), str(tmp_path))
    assert final["test"]["auc"]["value"] > 0.7


def test_own_baseline(config, tmp_path, monkeypatch):
    monkeypatch.setitem(baselines.BASELINES, "again", None)
    exec(block("class Again"), vars(baselines))
    c = config.unlock()
    c.item_tower.sources, c.eval.mask_seen = ("id",), False
    c.eval.baselines = ("again",)
    c.train.phases = (base.phase("p", epochs=1),)
    found = train.run(c.lock(), str(tmp_path))["baselines"]["again"]
    data = load_data(c)
    length = c.data.history_length
    again = [
        data.test.targets_R[row] in data.test.history(row)[-length:]
        for row in range(len(data.test))
    ]
    assert found["hr@10"]["value"] == np.mean(again)


def test_own_data(config, tmp_path, monkeypatch):
    days = [f"2024-05-{1 + i:02}" for i in range(4)]
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "shop.inter.csv").write_text(
        "customer,sku,bought_at\n"
        + "".join(f"ann,s{i},{day}\n" for i, day in enumerate(reversed(days)))
    )
    (tmp_path / "shop" / "shop.item.csv").write_text(
        "sku,name,brand\n" + "".join(f's{i},"thing, {i}",acme\n' for i in range(4))
    )
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    exec(block("def get_config():"), space)
    c = space["get_config"]()
    assert c.is_locked
    data = load_data(c)
    assert data.test.sequence(0).tolist() == [3, 2, 1, 0]
    assert data.render(c.text.template)[1] == "thing, 1. acme"


def test_freezing_by_phases(config, six_layers):
    """Each line of it, and how much of the encoder's chain it keeps frozen."""
    c, encoder = config.unlock(), load_config(six_layers)
    blocks = []
    for line in ast.parse(block('freeze("lora")')).body:
        exec(ast.unparse(line), {"base": base, "c": c})
        if "phases" not in ast.unparse(line):
            continue
        model = make_model(c, 25, encoder)
        shapes = trace_init(c, model).shapes
        rules = [
            optimizer.resolve_rules(c.optim, p, list(shapes)) for p in c.train.phases
        ]
        trained = [each.split(shapes)[0] for each in rules]
        blocks.append([count_frozen_blocks(encoder, paths) for paths in trained])
    assert blocks == [[5, 3, 1], [1], [0]]


def test_links_lead_somewhere():
    for path in re.findall(r"\]\(([^)#:]+)\)", Path("README.md").read_text()):
        assert Path(path).exists(), path


def test_a_config_with_a_sweep():
    space = {}
    exec(block("reference.make(variant, sweep)"), space)
    assert space["get_config"]("cls").item_tower.pooling == "cls"
    industrial = space["get_config"]("mean@amazon_industrial")
    assert industrial.data.source == "amazon-industrial"


def test_a_sweep_on_own_data(tmp_path):
    code = block("reference.pick(c, variant, sweep)")
    (tmp_path / "shop.py").write_text(code)
    made = {}
    for point in load_sweep(str(tmp_path / "shop.py")):
        made[point] = resolve([f"--config={tmp_path / 'shop.py'}:{point}"])
        check_config(made[point])
    assert list(made) == ["text", "id", "fast"]
    assert made["id"].item_tower.sources == ("id",)
    assert made["fast"].train.phases[0].lr == 1e-2
    assert {c.data.source for c in made.values()} == {"shop"}
