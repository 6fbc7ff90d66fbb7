"""The code on the README's page runs as it stands there."""

import re
from pathlib import Path

from configs import base
from recjax import losses, train
from recjax.data.protocol import load_data
from recjax.models import users

BLOCKS = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)


def block(start):
    (code,) = [b for b in BLOCKS if start in b]
    return code


def test_own_tower_and_loss(config, tmp_path, monkeypatch):
    monkeypatch.setattr(users, "USER_TOWERS", users.USER_TOWERS)
    monkeypatch.setitem(users.USER_TOWERS, "max", None)  # taken out again afterwards
    monkeypatch.setitem(losses.LOSSES, "focal", None)
    exec(block("class MaxTower"), vars(users))
    exec(block("def focal"), vars(losses))
    c = config.unlock()
    c.user_tower.name, c.loss.name = "max", "focal"
    c.item_tower.sources = ("id", "text")
    c.train.phases = (base.phase("p", epochs=8, lr=1e-2),)
    final = train.run(c.lock(), str(tmp_path))
    assert final["test"]["auc"]["value"] > 0.7


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
    exec(block("def get_config"), space)
    c = space["get_config"]()
    assert c.is_locked
    data = load_data(c)
    assert data.test.sequence(0).tolist() == [3, 2, 1, 0]
    assert data.render(c.text.template)[1] == "thing, 1. acme"


def test_links_lead_somewhere():
    for path in re.findall(r"\]\(([^)#:]+)\)", Path("README.md").read_text()):
        assert Path(path).exists(), path
