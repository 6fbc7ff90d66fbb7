"""Tests of the variants of a config."""

import pytest

from recjax.config import base
from recjax.config.variants import pick, read_variants

pytestmark = pytest.mark.unit


def sweep(add):
    add("narrow", {})
    add("wide", {"item_tower.width": 128, "item_tower.sources": ("id", "text")})
    add("no_comma", {"item_tower.sources": ("id")})


def test_a_variant_is_the_config_with_its_changes():
    config = pick(base.get_config(), "wide", sweep)
    assert config.item_tower.width == 128
    assert config.item_tower.sources == ("id", "text")
    assert config.is_locked


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(ValueError, match="no variant 'wild'; choose one of narrow, wi"):
        pick(base.get_config(), "wild", sweep)


def test_a_missing_comma_of_a_tuple_is_shown():
    message = r"'no_comma': item_tower.sources is a tuple, not 'id'; write \('id',\)"
    with pytest.raises(ValueError, match=message):
        pick(base.get_config(), "no_comma", sweep)


def test_variants_of_the_same_name_are_refused():
    def sweep(add):
        add("a", {})
        add("a", {"seed": 1})

    with pytest.raises(ValueError, match="variant 'a' appears twice"):
        read_variants(sweep)


@pytest.mark.parametrize(
    "name",
    [
        *("../up", "/root", "a/b", "a@b", "", ".hidden", 64, "a:b"),
        *("a\0b", "a\nb", "table.json", "study.db", "long" * 26),
    ],
)
def test_invalid_variant_names_are_refused(name):
    with pytest.raises(ValueError, match="is not a variant name"):
        read_variants(lambda add: add(name, {}))


def test_a_loop_may_modify_the_changes_that_it_added():
    def sweep(add):
        changes = {}
        for width in (32, 64):
            changes["item_tower.width"] = width
            add(f"width = {width} (0.5)", changes)

    assert [x["item_tower.width"] for x in read_variants(sweep).values()] == [32, 64]
