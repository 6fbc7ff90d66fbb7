"""The code, commands, config keys and links on the README pages work as written.

Each block of code is imported as a module of its own, from a temporary directory, and
names that it registers are removed after the test.
"""

import contextlib
import importlib.util
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest

import recjax
from configs.ablations.reference import ONLY_THE_BATCH
from experiments.sweeping.load import load_sweep, resolve
from recjax.baselines import BASELINES
from recjax.common.param_paths import match_rules
from recjax.config import base
from recjax.config.keys import PHASE, SECTIONS
from recjax.config.validate import check_config
from recjax.data.splits import load_data
from recjax.export import stablehlo
from recjax.losses import LOSSES
from recjax.models.encoders.huggingface import load_config
from recjax.models.items.tower import SOURCES
from recjax.models.recommender import make_model
from recjax.models.users import USER_TOWERS
from recjax.run import train
from recjax.training.initial_params import trace_init
from tests.conftest import TINY_BERT
from tests.faults.services import free_port

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "configs/README.md",
    "tests/faults/README.md",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("recjax/**/README.md")),
]
EXPERIMENTS = [
    str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("experiments/**/README.md"))
]
LINKED = [*PAGES, *EXPERIMENTS, "CHANGELOG.md"]
# Number of code blocks by page; each has a test in this file.
NUM_BLOCKS = {
    "README.md": 2,
    "configs/README.md": 3,
    "experiments/README.md": 1,
    "recjax/baselines/README.md": 1,
    "recjax/checkpointing/README.md": 1,
    "recjax/export/README.md": 1,
    "recjax/inference/README.md": 1,
    "recjax/losses/README.md": 1,
    "recjax/models/README.md": 2,
}
REGISTRIES = (BASELINES, LOSSES, SOURCES, USER_TOWERS)


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)


@contextlib.contextmanager
def restored_registries():
    """Removes the names that are registered inside the block after it."""
    with contextlib.ExitStack() as stack:
        for registry in REGISTRIES:
            stack.enter_context(mock.patch.dict(registry))
        yield


@pytest.fixture(autouse=True)
def _restore_registries():
    with restored_registries():
        yield


@pytest.fixture
def run_block(tmp_path, monkeypatch):
    """Writes the block of a page that contains a text to a file, and imports it."""

    def run(page, text, name="page_code"):
        (code,) = [block for block in blocks(page) if text in block]
        path = tmp_path / f"{name}.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return run


# --- All pages ------------------------------------------------------------------------


def test_the_first_page_is_short():
    assert len(read("README.md").splitlines()) <= 200


def test_every_block_of_code_has_a_test():
    pages = [*PAGES, *EXPERIMENTS]
    found = {page: len(blocks(page)) for page in pages if blocks(page)}
    assert found == NUM_BLOCKS


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", read(page)):
        assert (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_config_keys_exist(page):
    sections = "|".join(name for name in SECTIONS if name)
    pattern = rf"(?:`|--config\.)({sections})\.(\w+)(?=[`= ])"
    for section, key in re.findall(pattern, read(page)):
        assert key in SECTIONS[section] or key == "phases", f"{section}.{key}"
    for key in re.findall(r"train\.phases\[\d\]\.(\w+)", read(page)):
        assert key in PHASE, key


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    for module in re.findall(r"python -m ([\w.]+)", read(page)):
        if importlib.util.find_spec(module).submodule_search_locations:  # a package
            module += ".__main__"
        assert importlib.util.find_spec(module), module


# --- README.md ------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The files of the page's shop, with its header lines and more rows."""
    header, item_header = (
        re.search(rf"^    ({first},.*)$", read("README.md"), re.MULTILINE)[1]
        for first in ("customer", "sku")
    )
    folder = tmp_path / "shop"
    folder.mkdir()
    users = ["ann", "bob", *(f"c{i}" for i in range(10))]  # two that the pages name
    skus = [{1: "s17", 3: "s42"}.get(i, f"s{i}") for i in range(12)]
    events = [
        f"{name},{skus[(user + 2 * day) % 12]},2024-05-{day + 1:02}"
        for user, name in enumerate(users)
        for day in reversed(range(5))
    ]
    items = [f'{sku},"thing, {i}",Acme' for i, sku in enumerate(skus)]
    (folder / "shop.inter.csv").write_text("\n".join([header, *events]))
    (folder / "shop.item.csv").write_text("\n".join([item_header, *items]))
    monkeypatch.chdir(tmp_path)


def test_own_data(run_block, shop):
    config = run_block("README.md", "bought_at").get_config()
    data = load_data(config)
    assert data.item_ids[data.test.sequence(0)].tolist() == [
        f"s{2 * i}" for i in range(5)
    ]
    assert data.render(config.text.template, "text.template")[1] == "thing, 1. Acme"


def test_ablation_on_own_data(run_block, shop, tmp_path):
    file = run_block("README.md", "bought_at").__file__
    configs = {
        variant: resolve([f"--config={file}:{variant}"]) for variant in load_sweep(file)
    }
    for config in configs.values():
        check_config(config)
    assert {name: config.item_tower.sources for name, config in configs.items()} == {
        "both": ("id", "text"),
        "id": ("id",),
        "text": ("text",),
    }


@pytest.fixture
def trained_shop(run_block, shop):
    """A finished run of the page's config in runs/shop, with a tiny encoder."""
    config = run_block("README.md", "bought_at").get_config().unlock()
    config.text.encoder, config.text.max_tokens = str(TINY_BERT), 12
    config.text.cache_disk_gib, config.item_tower.width = 0.0, 8
    config.eval.bootstrap_samples = 20
    config.train.phases[0].epochs, config.train.phases[0].keep = 1, "last"
    train.run(config.lock(), "runs/shop")


def page_command(start):
    """Returns the arguments of the page's command that begins so."""
    (line,) = re.findall(rf"^    .*(python -m {start}.*)$", read("README.md"), re.M)
    return [sys.executable, *shlex.split(line)[1:]]


def test_lists_for_everybody_in_one_command(trained_shop):
    subprocess.run(page_command("recjax.recommend"), check=True)
    lists = pl.read_csv("lists.csv")
    assert lists.group_by("user").len()["len"].to_list() == [7] * 12  # of 12, 5 seen
    assert {"user", "rank", "item", "score", "title"} <= set(lists.columns)
    assert lists["title"].str.starts_with("thing, ").all()


def test_a_page_in_the_browser_in_one_command(trained_shop):
    pytest.importorskip("uvicorn")
    port = free_port()
    command = [*page_command("recjax.serve"), f"--port={port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            lines = [service.stdout.readline() for _ in range(2)]
            assert lines[1].split() == ["page:", f"http://127.0.0.1:{port}/"]
            url = f"http://127.0.0.1:{port}/"
            with urllib.request.urlopen(url, timeout=60) as answer:
                assert b"<title>recjax</title>" in answer.read()
        finally:
            service.terminate()


def test_training_on_all_events(trained_shop):
    found = re.search(r"`--config=(refit:\S+)`", read("README.md"))[1]
    program = [sys.executable, "-m", "recjax.main", f"--config={found}"]
    subprocess.run([*program, "--workdir=runs/all"], check=True)
    events = [recjax.load(f"runs/{x}").items["events"].sum() for x in ("shop", "all")]
    assert events == [12 * 3, 12 * 5]


def test_calling_an_exported_tower(trained_shop, run_block):
    pytest.importorskip("flatbuffers")
    model = recjax.load("runs/shop")
    Path("exported").mkdir()
    stablehlo.export_towers(model.parts, Path("exported"))
    module = run_block("recjax/export/README.md", "tower.call", "calling")
    assert module.queries.shape == (2, 8)
    assert np.isfinite(module.queries).all()


def test_using_what_was_trained(run_block, trained_shop, capsys):
    capsys.readouterr()
    module = run_block("README.md", "recjax.load", "using")
    assert module.scores.shape == (2, 1)
    lines = capsys.readouterr().out
    assert "ann" in lines
    page = run_block("recjax/inference/README.md", "recjax.load", "inference")
    assert page.lists["rank"].to_list() == [*range(1, len(page.lists) + 1)]
    assert recjax.load("models/shop").items["id"].to_list()[-1] == "s99"


# --- configs/README.md ----------------------------------------------------------------


def test_config_file(run_block):
    config = run_block("configs/README.md", '"gru"').get_config()
    check_config(config)
    assert config.user_tower.name == "gru"


def test_freezing_by_phases(run_block, config, six_layers):
    """Each example trains the encoder's parameters that the page says."""
    module = run_block("configs/README.md", 'freeze("lora")')
    assert module.config.train.phases == module.gradual
    config.text.lora_rank = 8
    model = make_model(config, 25, load_config(six_layers))
    paths = list(trace_init(config, model).shapes)

    def trained(phase):
        mults = match_rules(phase.lr_mults, paths, "lr_mults")
        encoder = [p for p in paths if p.startswith(base.ENCODER) and mults[p]]
        return {path.removeprefix(base.ENCODER) for path in encoder}

    for phase, layers in zip(module.gradual, (2, 4, 6), strict=True):
        top = {path.split("/")[0] for path in trained(phase)} - {"pool"}
        assert top == {f"layer_{layer}" for layer in range(6 - layers, 6)}
    assert {path.split("/")[-1] for path in trained(module.lora[0])} == {
        "lora_a",
        "lora_b",
    }
    assert {path.split("/")[-1] for path in trained(module.biases[0])} == {"bias"}


def test_sweep(run_block):
    file = run_block("configs/README.md", "def sweep").__file__
    configs = {name: resolve([f"--config={file}:{name}"]) for name in load_sweep(file)}
    assert list(configs) == ["mean", "cls", "slow"]
    assert configs["cls"].item_tower.pooling == "cls"
    assert configs["slow"].train.phases[0].lr == 1e-4


# --- experiments/README.md ------------------------------------------------------------


def test_an_ablation_on_a_data_set_in_a_file(run_block, shop):
    """The file has the keys of the main page, and the defaults that it names."""
    page = run_block("experiments/README.md", "def describe")
    config = resolve(
        [f"--config={ROOT}/configs/ablations/towers.py:gru@{page.__file__}"]
    )
    whole = run_block("README.md", "bought_at", "shop_config").get_config()
    assert config.data == whole.data
    assert config.text == whole.text
    assert page.TUNED == ONLY_THE_BATCH
    assert len(load_data(config).item_ids) > 0


# --- Own parts ------------------------------------------------------------------------


def test_own_tower_loss_and_source(run_block, config, tmp_path):
    run_block("recjax/models/README.md", "class MaxTower", "own_tower")
    run_block("recjax/models/README.md", "class HashedSource", "own_source")
    run_block("recjax/losses/README.md", "def focal", "own_loss")
    config.unlock()
    config.user_tower.name = "max"
    config.loss.name = "focal"
    config.item_tower.sources = ("hashed", "id", "text")
    config.train.phases = (base.phase("p", epochs=8, lr=1e-2),)
    results = train.run(config.lock(), str(tmp_path / "run"))
    assert results["test"]["auc"]["value"] > 0.7


def test_own_baseline_and_reading_params(run_block, config, tmp_path, monkeypatch):
    run_block("recjax/baselines/README.md", "class Again")
    config.unlock()
    config.item_tower.sources, config.eval.mask_seen = ("id",), False
    config.eval.baselines = ("again",)
    config.train.phases = (base.phase("p", epochs=1),)
    monkeypatch.chdir(tmp_path)
    results = train.run(config.lock(), "runs/quickstart")
    data = load_data(config)
    length = config.data.history_length
    again = [
        data.test.targets_R[row] in data.test.history(row)[-length:]
        for row in range(len(data.test))
    ]
    assert results["baselines"]["again"]["hr@10"]["value"] == np.mean(again)
    params = run_block("recjax/checkpointing/README.md", "read_params", "reading")
    assert "items/id/vectors/embedding" in params.changed


def test_registrations_do_not_leak(run_block):
    before = [set(registry) for registry in REGISTRIES]
    with restored_registries():
        run_block("recjax/models/README.md", "class MaxTower", "own_tower")
        run_block("recjax/models/README.md", "class HashedSource", "own_source")
        run_block("recjax/losses/README.md", "def focal", "own_loss")
        run_block("recjax/baselines/README.md", "class Again")
        assert all(
            len(set(x) - y) == 1 for x, y in zip(REGISTRIES, before, strict=True)
        )
    assert [set(registry) for registry in REGISTRIES] == before
