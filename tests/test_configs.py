"""Every config and variant builds, is locked, and takes steps on synthetic data."""

import importlib
from pathlib import Path

import jax
import numpy as np
import optuna
import pytest
from jax.extend.core import jaxpr_as_fun

from configs.ablations import finetuning, reference
from configs.ablations.reference import DATA_SETS
from experiments.sweeping.load import load_function, resolve
from recjax.config import base
from recjax.config.validate import check_config
from recjax.config.variants import read_variants
from recjax.models.encoders.huggingface import load_config
from recjax.models.recommender import make_model
from recjax.run import train
from recjax.training.initial_params import trace_init
from tests.conftest import shrink

NAMES = sorted(
    p.stem
    for p in Path("configs").glob("*.py")
    if p.stem not in ("__init__", "data_sets", "recipes")
)
ABLATIONS = {
    path.stem: importlib.import_module(".".join(path.with_suffix("").parts))
    for path in sorted(Path("configs").rglob("*.py"))
    if "def sweep(" in path.read_text()
}
VARIANTS = [
    (name, variant)
    for name, module in ABLATIONS.items()
    for variant in read_variants(module.sweep)
] + [("freezing", "top2@amazon_industrial")]


@pytest.mark.parametrize("name", NAMES)
def test_config_runs(name, atomic_dir, six_layers, tmp_path):
    c = importlib.import_module(f"configs.{name}").get_config()
    assert c.is_locked
    with pytest.raises(AttributeError):
        c.train.epochs = 3
    final = train.run(shrink(c, atomic_dir, six_layers), str(tmp_path))
    assert np.isfinite(final["test"]["ndcg@10"]["value"])
    if name == "quickstart":
        text = (tmp_path / "results.md").read_text()
        assert "after phase encoder (" in text
        assert "after phase towers (" in text


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_variant_runs(name, variant, atomic_dir, six_layers, tmp_path):
    """Phases that the default has too are trained in the test of the default alone."""
    c = ABLATIONS[name].get_config(variant)
    assert c.is_locked
    default = ABLATIONS[name].get_config()
    if c.to_json() != default.to_json():
        with c.unlocked():
            own = [x for x in c.train.phases if x not in default.train.phases]
            c.train.phases = tuple(own) or c.train.phases
    final = train.run(shrink(c, atomic_dir, six_layers), str(tmp_path))
    assert np.isfinite(final["test"]["ndcg@10"]["value"])
    trained = [phase["trainable"] for phase in final["phases"].values()]
    assert final["params"]["trainable"] == max(trained)


@pytest.mark.parametrize("name", ABLATIONS)
def test_variants_differ_and_the_default_is_the_reference(name):
    module = ABLATIONS[name]
    variants = list(read_variants(module.sweep))
    several = "make(" in Path(module.__file__).read_text()
    for at in [f"@{data_set}" for data_set in DATA_SETS] if several else [""]:
        built = [module.get_config(f"{v}{at}").to_json() for v in variants]
        assert len(set(built)) == len(built)
    assert module.get_config().to_json() == module.get_config(variants[0]).to_json()
    with pytest.raises(ValueError, match="no variant 'none'; choose one of"):
        module.get_config("none")
    if several:
        with pytest.raises(ValueError, match="no data set 'mars'; choose one of"):
            module.get_config(f"{variants[0]}@mars")


def test_adapters_leave_the_start_of_finetuning_as_it_is(atomic_dir, six_layers):
    """One variant has LoRA; its other parameters begin as those of the reference."""
    start = {}
    for variant in ("frozen", "lora"):
        c = finetuning.get_config(variant)
        c = shrink(c, atomic_dir, six_layers)
        model = make_model(c, 25, load_config(six_layers))
        jaxpr, shapes = trace_init(c, model)
        values = jaxpr_as_fun(jaxpr)(jax.random.key(c.seed))
        start[variant] = dict(zip(sorted(shapes), values, strict=True))
    added = set(start["lora"]) - set(start["frozen"])
    assert {path.split("/")[-1] for path in added} == {"lora_a", "lora_b"}
    assert not any(start["lora"][p].any() for p in added if p.endswith("lora_b"))
    for path, value in start["frozen"].items():
        np.testing.assert_array_equal(start["lora"][path], value, path)


def test_finetuning_variants_have_the_same_steps():
    """Variants differ in what the first phase trains and its rate, with exceptions."""
    frozen = finetuning.get_config("frozen").train.phases
    phases = {
        variant: finetuning.get_config(variant).train.phases
        for variant in read_variants(finetuning.sweep)
    }
    encoders = {name: x[0] for name, x in phases.items() if len(x) == 2}
    assert all(x[1:] == frozen for x in phases.values() if len(x) == 2)
    free = {"lr", "lr_mults"}
    free_of = {"stale": "negatives", "anchor": "anchor", "more_steps": "epoch_steps"}
    for name, phase in encoders.items():
        differ = {key for key in phase if phase[key] != encoders["top2"][key]}
        assert differ <= free | {free_of.get(name, "lr")}, name
    (joint,) = phases["joint"]
    differ = {key for key in joint if joint[key] != frozen[0][key]}
    assert differ == {"lr_mults", "negatives"}


def test_a_variant_overrides_the_data_set_in_the_phase_that_trains_the_encoder():
    """The data set sets only the keys that the variant leaves at their default."""

    def sweep(add):
        tune = base.phase(reference.TUNE, **{**reference.TUNING, "batch_size": 64})
        add("small", {"train.phases": (tune,)})

    c = reference.make("small@amazon_industrial", sweep, tuned=True)
    (tune,) = c.train.phases
    assert (tune.batch_size, tune.negatives) == (64, "stale")


def test_a_data_set_in_a_file(tmp_path):
    """`TUNED` is for the phase that trains the encoder; by default it is bounded."""
    path = tmp_path / "shop.py"
    path.write_text("def describe(config):\n    config.data.source = 'here'\n")
    c = importlib.import_module("configs.ablations.freezing").get_config(f"top2@{path}")
    assert c.data.source == "here"
    _, tune, _ = c.train.phases
    assert (tune.batch_size, tune.negatives) == (128, "stale")
    path.write_text(path.read_text() + "TUNED = {'batch_size': 32}\n")
    c = importlib.import_module("configs.ablations.freezing").get_config(f"top2@{path}")
    _, tune, _ = c.train.phases
    assert (tune.batch_size, tune.negatives) == (32, "")


@pytest.mark.parametrize("path", sorted(Path("configs/searches").glob("[a-z]*.py")))
def test_a_search_samples_keys_of_the_config(path):
    space = load_function(str(path), "search")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        changes = space(study.ask())
        flags = [f"--config.{key}={value}" for key, value in changes.items()]
        check_config(resolve([f"--config={path}", *flags]))
