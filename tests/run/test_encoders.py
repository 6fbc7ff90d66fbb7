"""Complete runs with variants of the text encoder, and configs that are refused."""

import numpy as np
import pytest

from recjax.catalogue.arrays import CatalogueBuilder
from recjax.catalogue.whitening import whiten
from recjax.checkpointing.checkpoints import read_params
from recjax.common import param_paths
from recjax.common.errors import UserError
from recjax.config import base
from recjax.config.validate import check_config
from recjax.run import train
from tests.conftest import TINY_BERT, TOP


def train_changes(config, workdir, rules):
    """The change of each parameter in a phase with these rules."""
    c = config.copy_and_resolve_references().unlock()
    c.item_tower.sources, c.user_tower.dropout = ("id", "text"), 0.05
    c.train.batch_size = 8  # 40 users: 5 steps an epoch
    c.train.phases = (base.phase("p", epochs=12, patience=0, lr=1e-2, lr_mults=rules),)
    final = train.run(c.lock(), str(workdir))
    assert np.isfinite(final["test"]["auc"]["value"])
    return param_paths.max_change(*(read_params(workdir, i) for i in range(2))).items()


@pytest.mark.parametrize("name", ["tiny_roberta", "tiny_distilbert"])
def test_other_model_types_train(config, tmp_path, name):
    config.unlock().text.encoder = str(TINY_BERT.parent / name)
    for path, change in train_changes(config, tmp_path, base.freeze(1, layers=3)):
        frozen = "/encoder/" in path and not path.startswith(TOP)
        assert (change == 0) == frozen, path


def test_a_missing_part_of_an_encoder_is_one_line(config, tmp_path):
    c = config.unlock()
    c.text.encoder = str(TINY_BERT.parent / "tiny_distilbert")
    c.item_tower.pooling = "pooler"
    with pytest.raises(UserError, match=r"pooling: 'pooler', but text\.encoder .* has"):
        train.run(c, str(tmp_path))
    c.text.encoder, c.text.max_tokens = str(TINY_BERT.parent / "tiny_roberta"), 49
    with pytest.raises(UserError, match="49 is more than the encoder's maximum, 48"):
        train.run(c, str(tmp_path))


@pytest.mark.parametrize(
    ("what", "leaves"), [("lora", ("lora_a", "lora_b")), ("bias", ("bias",))]
)
def test_only_adapters_or_only_biases_are_trained(config, tmp_path, what, leaves):
    """All other parameters of the encoder stay bit-identical."""
    config.unlock().text.lora_rank = 2 if what == "lora" else 0
    seen = 0
    for path, change in train_changes(config, tmp_path, base.freeze(what)):
        free = path.rpartition("/")[2] in leaves
        seen += "/encoder/" in path and free
        if not path.endswith("key/bias"):  # the softmax does not depend on it
            assert (change > 0) == (free or "/encoder/" not in path), path
    assert seen == {"lora": 3 * 2 * 2, "bias": 1 + 3 * 8}[what]


def test_adapters_of_the_top_layer_keep_the_prefix_below(config, tmp_path, capsys):
    config.unlock().text.lora_rank = 2
    rules = ((TOP + r".*/lora_[ab]", 1.0), (base.ENCODER + ".*", None), (".*", 1.0))
    for path, change in train_changes(config, tmp_path, rules):
        trained = path.startswith(TOP) and "/lora_" in path
        assert (change > 0) == (trained or "/encoder/" not in path), path
    assert "frozen prefix: 3 of 5 blocks" in capsys.readouterr().out


def test_adapters_without_effect_are_one_line(config, tmp_path):
    c = config.unlock()
    c.text.lora_rank = 2
    with pytest.raises(UserError, match=r"lora_rank: 2, but no phase trains LoRA"):
        train.run(c, str(tmp_path))
    c.text.lora_rank = 17
    with pytest.raises(UserError, match=r"lora_rank: 17 is more than the encoder's"):
        train.run(c, str(tmp_path))
    c.text.lora_rank = 0
    c.train.phases = (base.phase("p", lr_mults=base.freeze("lora")),)
    with pytest.raises(UserError, match=r"lora_\[ab\]' matches no parameter"):
        train.run(c, str(tmp_path))


@pytest.mark.parametrize("name", ["token_dropout", "token_span"])
@pytest.mark.parametrize("source", ["id", "text"])
def test_leaving_out_tokens_that_no_step_reads_is_one_line(
    config, tmp_path, name, source
):
    c = config.unlock()
    c.item_tower.sources, c.augment[name] = (source,), 0.1
    with pytest.raises(UserError, match=rf"augment\.{name}: 0.1, but no phase trains"):
        train.run(c, str(tmp_path))


def test_frozen_vectors_are_whitened(config, tmp_path, monkeypatch):
    """Whitening changes what the item tower reads, and no zero-shot result."""
    seen, before = [], {}

    def record(*args):
        arrays = build(*args)
        seen.append(np.asarray(arrays.by_source["text"]["vectors_NxE"]))
        return arrays

    build = CatalogueBuilder.build
    monkeypatch.setattr(CatalogueBuilder, "build", record)
    for white in (False, True):
        c = config.copy_and_resolve_references().unlock()
        c.text.whiten, c.item_tower.mlp_layers = white, 2
        before[white] = train.run(c.lock(), str(tmp_path / str(white)))["zero_shot"]
    assert before[True] == before[False]
    np.testing.assert_array_equal(seen[1], whiten(seen[0]))


@pytest.mark.parametrize(
    ("pooling", "rules", "path"),
    [
        ("mean", base.freeze(1, layers=3), base.ENCODER + "layer_2/"),
        ("mean", base.freeze("bias"), base.ENCODER + "embeddings/norm/bias"),
        ("attention", base.freeze("all"), "items/text/pool/"),
    ],
)
def test_whitening_where_a_phase_trains_the_encoder(
    config, tmp_path, pooling, rules, path
):
    c = config.unlock()
    c.text.whiten, c.item_tower.pooling = True, pooling
    c.train.phases = (base.phase("towers"), base.phase("last", lr_mults=rules))
    if pooling == "attention":
        c.train.phases = (base.phase("last", lr_mults=rules),)
    with pytest.raises(UserError, match=rf"whiten: phase last trains {path}"):
        train.run(c, str(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [("text.lora_rank", -1), ("text.lora_alpha", 0.0), ("item_tower.mlp_layers", -1)],
)
def test_numbers_out_of_range_are_one_line(config, key, value):
    section, name = key.split(".")
    config.unlock()[section][name] = value
    with pytest.raises(UserError, match=f"{key}: {value} is not at least"):
        check_config(config)
