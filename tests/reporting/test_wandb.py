"""Scalars sent to Weights & Biases, to a fake and, if it is installed, to wandb."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from recjax.common.errors import UserError
from recjax.reporting.wandb import WandbWriter
from recjax.run import train


class Service(ModuleType):
    """A fake of the module `wandb` that records its calls."""

    def __init__(self, starting_step=0, error=None):
        super().__init__("wandb")
        self.starting_step, self.error = starting_step, error
        self.sent, self.finished, self.options = [], 0, {}

    def Settings(self, **options):
        return options

    def init(self, **options):
        if self.error:
            raise self.error
        self.options = options
        return SimpleNamespace(
            starting_step=self.starting_step,
            log=lambda values, step: self.sent.append((step, values)),
            finish=self.finish,
        )

    def finish(self):
        self.finished += 1


def with_wandb(config):
    config = config.copy_and_resolve_references().unlock()
    config.report.wandb = "movies"
    return config.lock()


def test_a_run_sends_its_scalars(config, tmp_path, monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    workdir = tmp_path / "point" / "0"
    workdir.mkdir(parents=True)
    train.run(with_wandb(config), str(workdir))
    tags = {tag for _, values in service.sent for tag in values}
    assert {"valid/ndcg@10", "test/hr@10", "train/loss"} <= tags
    steps = [step for step, _ in service.sent]
    assert steps == sorted(steps)
    assert service.finished == 1
    options = service.options
    assert (options["project"], options["name"]) == ("movies", "point/0")
    assert options["config"]["item_tower.width"] == config.item_tower.width
    assert options["resume"] == "allow"


def test_resumed_under_the_same_id(tmp_path, monkeypatch):
    """Steps that were sent before are not sent again."""
    ids = []
    for starting_step in (0, 7):
        service = Service(starting_step)
        monkeypatch.setitem(sys.modules, "wandb", service)
        sink = WandbWriter(tmp_path, "movies", {})
        for step in (6, 7, 8):
            sink.scalars(step, {"x": 1.0})
        ids.append(service.options["id"])
        assert [step for step, _ in service.sent] == [
            step for step in (6, 7, 8) if step >= starting_step
        ]
    assert ids[0] == ids[1]
    # A run that is deleted and made again has other curves, whatever its name.
    (tmp_path / "wandb_id").unlink()
    WandbWriter(tmp_path, "movies", {})
    assert service.options["id"] != ids[0]


def test_a_missing_library_or_key_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"^report\.wandb: needs wandb; pip install"):
        WandbWriter(tmp_path, "movies", {})
    service = Service(error=ValueError("No API key configured."))
    monkeypatch.setitem(sys.modules, "wandb", service)
    with pytest.raises(UserError, match=r"^report.wandb: No API key configured\.$"):
        WandbWriter(tmp_path, "movies", {})


def test_offline(config, tmp_path, monkeypatch):
    """The installed package writes a file that has the scalars."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train.run(with_wandb(config), str(tmp_path))
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = path.read_bytes()
    assert b"valid/ndcg@10" in found
    assert b"item_tower.width" in found
