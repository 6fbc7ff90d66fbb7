"""The cache key of the frozen prefix covers everything its values depend on."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from recjax.catalogue import frozen_prefix
from recjax.catalogue.frozen_prefix import (
    ENCODER_CODE,
    PrefixEncoder,
    compute_prefix,
    make_packing,
)
from recjax.common.errors import UserError
from recjax.common.param_paths import TEXT_PARAMS
from recjax.data.text.packing import Packing, Tokens, catalogue_pieces
from recjax.models.encoders.huggingface import load_config
from recjax.models.items import text_source
from recjax.models.recommender import make_model
from recjax.runtime.compiler import Compiler
from recjax.runtime.mesh import make_mesh
from tests.conftest import TINY_BERT

pytestmark = pytest.mark.unit

NUM_ITEMS = 3


@pytest.fixture
def key(config):
    """A function that computes the key of two frozen blocks after some changes."""
    config.item_tower.sources = ("text",)
    params = {
        TEXT_PARAMS + "encoder/embeddings/norm/bias": np.zeros(2, np.float32),
        TEXT_PARAMS + "encoder/layer_0/mlp_up/bias": np.zeros(2, np.float32),
        TEXT_PARAMS + "encoder/layer_1/mlp_up/bias": np.zeros(2, np.float32),
        TEXT_PARAMS + "project/bias": np.zeros(2, np.float32),
    }

    def compute(*, text=None, ids=(5, 6, 7), offsets=(0, 1, 2, 3), blocks=2, **changes):
        changed = config.copy_and_resolve_references().unlock()
        changed.text.update(text or {})
        tokens = Tokens(np.array(ids, np.int32), np.array(offsets))
        mesh = make_mesh(config.mesh)
        packing = make_packing(tokens, changed.text, mesh)
        compiler = Compiler(print, mesh)
        encoder = PrefixEncoder(
            packing, NUM_ITEMS, changed.text, mesh, compiler, print, None
        )
        changed.update(changes.pop("config", {}))
        model = make_model(changed, NUM_ITEMS, load_config(TINY_BERT))
        values = {**params, **changes.pop("params", {})}
        return encoder.cache_key(model, values, blocks)

    return compute


@pytest.mark.parametrize("module", ENCODER_CODE, ids=lambda module: module.__name__)
def test_an_edit_of_the_code_changes_the_key(key, module, tmp_path, monkeypatch):
    before = key()
    assert key() == before
    edited = tmp_path / "edited.py"
    edited.write_text(Path(module.__file__).read_text() + "# edited\n")
    monkeypatch.setattr(module, "__file__", str(edited))
    assert key() != before


def imported_modules(module):
    """Modules of recjax that a module imports, directly or through others."""
    found, pending = set(), [module.__name__]
    while pending:
        name = pending.pop()
        if name in found or not name.startswith("recjax.") or name not in sys.modules:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(Path(sys.modules[name].__file__).read_text())):
            if isinstance(node, ast.ImportFrom):
                pending.append(node.module)
                pending.extend(f"{node.module}.{each.name}" for each in node.names)
    return found


def test_the_code_in_the_key_is_complete():
    """All modules that the text source or the packing imports are covered."""
    covered = {module.__name__ for module in ENCODER_CODE}
    needed = imported_modules(text_source)
    needed |= imported_modules(frozen_prefix.text_packing)
    needed |= {"recjax.models.recommender", "recjax.models.items.tower"}
    needed.add("recjax.catalogue.frozen_prefix")
    # Token ids are in the key themselves; a package without code decides nothing.
    needed -= {"recjax.data.text.tokenize"} | {
        name for name in needed if hasattr(sys.modules[name], "__path__")
    }
    assert {n for n in needed if not n.startswith("recjax.common")} <= covered
    assert {
        "recjax.models.layers.attention",
        "recjax.models.layers.dropout",
        "recjax.models.encoders.bert",
        "recjax.models.layers.pooling",
    } <= covered


def test_each_input_changes_the_key(key):
    path = TEXT_PARAMS + "encoder/layer_0/mlp_up/bias"
    keys = [
        key(),
        key(ids=(5, 6, 8)),
        key(offsets=(0, 1, 1, 3)),
        key(blocks=1),
        key(blocks=3),
        key(params={path: np.array([0, 1e-45], np.float32)}),
        key(config={"item_tower": {"pooling": "cls"}}),
        key(config={"train": {"dtype": "bfloat16"}}),
        key(text={"cache_dtype": "bfloat16"}),
        key(text={"row_tokens": 48}),
        key(text={"rows_per_batch": 24}),
        key(text={"remat_rows": 16}),
    ]
    assert len(set(keys)) == len(keys)


def test_what_the_prefix_does_not_read_leaves_the_key(key):
    ones = np.ones(2, np.float32)
    upper = TEXT_PARAMS + "encoder/layer_1/mlp_up/bias"
    assert key(params={upper: ones}) == key()
    assert key(params={TEXT_PARAMS + "project/bias": ones}) == key()
    assert key(params={"users/norm/bias": ones}) == key()
    assert key(text={"cache_ram_gib": 0.0, "whiten": True}) == key()


def test_output_that_is_not_finite_is_an_error():
    tokens = Tokens(np.arange(3, dtype=np.int32), np.arange(4))
    pieces = catalogue_pieces(3, Packing(tokens, 4), 1, 8)
    with pytest.raises(UserError, match=r"text\.encoder: its output is not finite"):
        compute_prefix(
            lambda packed: np.full((*packed.index_RxL.shape, 2), np.nan),
            pieces,
            pooled=False,
            num_rows=3,
            allocate=np.zeros,
        )
