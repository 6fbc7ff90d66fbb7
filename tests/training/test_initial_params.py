"""Initial parameters: drawn at random, or read from the encoder's file."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from recjax.config import base
from recjax.models.encoders.huggingface import load_config
from recjax.models.recommender import make_model
from recjax.runtime import mesh as mesh_lib
from recjax.runtime.compiler import Compiler
from recjax.training.initial_params import init_params, trace_init
from tests.conftest import TINY_BERT


def init(config, **text):
    """Initial parameters, on the host."""
    c = config.copy_and_resolve_references().unlock()
    c.text.update(text)
    folder = Path(c.text.encoder)
    model = make_model(c, 25, load_config(folder))
    mesh = mesh_lib.make_mesh(c.mesh)
    compiler = Compiler(lambda line: None, mesh)
    params = init_params(c, trace_init(c, model), folder, mesh, compiler)
    return {path: np.asarray(x) for path, x in params.items()}


def test_weights_in_the_file_are_loaded(config):
    params, weights = init(config), load_file(TINY_BERT / "model.safetensors")
    name = "encoder.layer.1.attention.self.query.weight"
    path = base.ENCODER + "layer_1/attention/query/kernel"
    np.testing.assert_array_equal(params[path], weights[name].T)


@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_an_encoder_that_is_not_pretrained_is_drawn_as_bert_is(
    config, tmp_path, pooling
):
    """Only the encoder's values differ, and its `model.safetensors` is not needed."""
    config.unlock().item_tower.pooling = pooling
    loaded = init(config)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((TINY_BERT / name).read_bytes())
    drawn = init(config, encoder=str(tmp_path), pretrained=False)
    assert list(drawn) == list(loaded)
    spread = json.loads((TINY_BERT / "config.json").read_text())["initializer_range"]
    for path, x in drawn.items():
        if not path.startswith(base.ENCODER):
            np.testing.assert_array_equal(x, loaded[path], err_msg=path)
        elif path.endswith(("kernel", "embedding")):
            assert abs(x.mean()) < 5 * spread / x.size**0.5, path
            assert x.std() == pytest.approx(spread, rel=4 / x.size**0.5), path
        else:
            value = 1 if path.endswith("scale") else 0
            np.testing.assert_array_equal(x, np.full_like(x, value), err_msg=path)
