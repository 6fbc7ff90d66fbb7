"""Every declared bound, choice and rule of the config is enforced."""

import re

import pytest

from recjax.common.errors import UserError
from recjax.config import base, validate
from recjax.config.choices import allowed_names
from recjax.config.keys import PHASE, declared_keys
from recjax.config.validate import check_config, check_value
from recjax.models import users

pytestmark = pytest.mark.unit

KEYS = {**declared_keys(), **{f"phase.{name}": key for name, key in PHASE.items()}}


def config_with(changes):
    config = base.get_config().unlock()
    config.update_from_flattened_dict(changes)
    return config.lock()


def with_value(name, value):
    """A config with a value for a key; a key of phases is set in the first phase."""
    key = KEYS[name]
    if isinstance(key.default, tuple):
        value = (value,)
    if name.startswith("phase."):
        return config_with({f"train.phases[0].{name.partition('.')[2]}": value})
    return config_with({name: value})


def label(name):
    """The name of a key in messages."""
    return name.replace("phase.", "phase towers: ")


def refused_values(key):
    """Values just outside each declared bound."""
    example = key.default[:1] if isinstance(key.default, tuple) else (key.default,)
    whole = bool(example) and isinstance(example[0], int)
    step = 1 if whole else 1e-3
    if key.at_least is not None:
        yield type(step)(key.at_least) - step
    if key.below is not None:
        yield key.below
    if key.at_most is not None:
        yield key.at_most + step


REFUSED = [(name, value) for name, key in KEYS.items() for value in refused_values(key)]


def test_defaults_are_valid():
    check_config(base.get_config())


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_every_bound_is_enforced(name, value):
    with pytest.raises(UserError, match=f"^{label(name)}: .* is not at least") as e:
        check_config(with_value(name, value))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_values_at_the_inclusive_bounds_are_valid(name, value):
    key = KEYS[name]
    for bound in (key.at_least, key.at_most):
        if bound is not None:
            many = isinstance(key.default, tuple)
            number = int(bound) if many else bound
            check_value(name, (number,) if many else number, key)


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.choices])
def test_every_choice_is_enforced(name):
    with pytest.raises(UserError, match=f"^{label(name)}: 'no' is not one of") as e:
        check_config(with_value(name, "no"))
    assert all(choice in str(e.value) for choice in allowed_names(KEYS[name].choices))
    for choice in allowed_names(KEYS[name].choices):
        many = isinstance(KEYS[name].default, tuple)
        check_value(name, (choice,) if many else choice, KEYS[name])


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, key in KEYS.items()
        if not isinstance(key.default, tuple) and name != "phase.name"
    ],
)
def test_no_key_may_be_none(name):
    with pytest.raises(UserError, match=f"^{label(name)} is None; set a value"):
        check_config(with_value(name, None))


def test_names_registered_by_a_user_are_accepted(monkeypatch):
    monkeypatch.setitem(users.USER_TOWERS, "mine", None)
    check_config(config_with({"user_tower.name": "mine"}))


def test_every_key_is_declared_with_a_sentence():
    for name, key in KEYS.items():
        assert re.fullmatch(r"[A-Z].*[.]", key.doc), name
        assert key.default is not None


def test_phases_refuse_unknown_keys():
    with pytest.raises((AttributeError, KeyError)):
        base.phase("towers", epoch=1)


LIKES = {"data.rating": "rating", "eval.like_threshold": 4.0}
MISTAKES = [
    (
        {"user_tower.name": "gru", "user_tower.time": True},
        "user_tower.time: 'gru' has no biases of times; set False",
    ),
    (
        {"data.time": "", "user_tower.time": True},
        "user_tower.time: the data have no times",
    ),
    (
        {"data.split": "fixed", "user_tower.time": True},
        "user_tower.time: the data have no times",
    ),
    (
        {"user_tower.name": "hstu", "user_tower.filter_share": 0.5},
        "user_tower.filter_share: 'hstu' has no filter; set 0",
    ),
    ({"item_tower.width": 9}, "item_tower.width: 9 is not divisible by user_tower.num"),
    (
        {"data.rating_range": ("1", "5")},
        "data.rating_range: .* is not .lowest, highest",
    ),
    (
        {"data.rating_range": (5.0, 1.0)},
        "data.rating_range: .* is not .lowest, highest",
    ),
    ({"data.rating": "item_id"}, "data.rating: 'item_id' is already data.item"),
    ({"data.time": "user_id"}, "data.time: 'user_id' is already data.user"),
    (
        {"data.split": "fixed", "data.history": "item_id"},
        "data.history: 'item_id' is already data.item",
    ),
    (
        {"data.file_prefix": "../up"},
        "data.file_prefix: '../up' is not a part of a file",
    ),
    (
        {"data.split_fractions": (0.5, 0.5)},
        r"data.split_fractions: \(0.5, 0.5\) is not",
    ),
    (
        {"data.split_fractions": ("a", "b")},
        "data.split_fractions: 'a' in .* of type flo",
    ),
    ({"data.min_rating": 2.0}, "data.min_rating: needs a column of ratings"),
    (
        {"data.split": "fixed", "data.k_core": 2},
        "data.split: 'fixed' files are not fil",
    ),
    ({"eval.like_threshold": 4.0}, "eval.like_threshold: needs a column of ratings"),
    (
        {"loss.name": "rating"},
        "loss.name: 'rating' needs likes; set eval.like_threshold",
    ),
    (
        {"user_tower.ratings": True},
        "user_tower.ratings: True needs likes; set eval.like_threshold",
    ),
    (
        {**LIKES, "user_tower.ratings": True, "user_tower.name": "bert4rec"},
        "user_tower.ratings: 'bert4rec' would leak the masked items",
    ),
    ({"train.metric": "like_auc"}, "train.metric: 'like_auc' is not one of hr@1,"),
    (
        {
            **LIKES,
            "loss.name": "rating",
            "train.metric": "like_auc",
            "head.event_bias": (0.0, 1.0),
        },
        "train.metric: 'like_auc' cannot choose head.event_bias",
    ),
    ({"loss.auxiliary": ("rating",)}, "loss.auxiliary: 'rating' needs likes; set"),
    (
        {**LIKES, "loss.name": "rating", "loss.auxiliary": ("rating",)},
        "loss.auxiliary: .* has a loss twice, or that of loss.name",
    ),
    (
        {"loss.auxiliary": ("duorec",), "loss.auxiliary_weights": (1.0, 2.0)},
        "loss.auxiliary_weights: .* must have one weight for each of",
    ),
    (
        {"loss.auxiliary": ("duorec",), "loss.auxiliary_weights": ("a",)},
        "loss.auxiliary_weights: .'a',. must be numbers of at least 0",
    ),
    (
        {"loss.auxiliary": ("category",), "item_tower.sources": ("id",)},
        "loss.category: '' clusters texts, which needs 'text'",
    ),
    (
        {
            "loss.auxiliary": ("category",),
            "loss.category": "genre",
            "data.item_table": False,
        },
        "loss.category: needs an item file",
    ),
    ({"eval.ks": ()}, r"eval.ks: \(\) has no cut-off"),
    ({"eval.ks": (10.5, 10)}, r"eval.ks: 10.5 in \(10.5, 10\) is not of type int"),
    ({"train.metric": "ndcg@7"}, "train.metric: 'ndcg@7' is not one of hr@1,"),
    ({"report.metrics": ("hr@7",)}, "report.metrics: 'hr@7' is not one of hr@1,"),
    ({"item_tower.sources": ()}, "item_tower.sources: .* must contain at least one"),
    ({"item_tower.sources": ("id", "id")}, "item_tower.sources: .* each only once"),
    ({"text.template": " "}, "text.template: empty, but item_tower.sources contains"),
    (
        {"user_tower.name": "bert4rec", "user_tower.repeats": True},
        "user_tower.repeats: 'bert4rec' would leak the masked items",
    ),
    (
        {"user_tower.name": "bert4rec", "data.history_length": 1},
        "data.history_length: 'bert4rec' needs at least 2",
    ),
    (
        {"user_tower.name": "graph", "loss.negatives": "in_batch"},
        "loss.negatives: 'in_batch'; a graph tower reads all items",
    ),
    (
        {"augment.substitute": 0.1, "item_tower.sources": ("id",)},
        "augment.substitute: needs 'text' in item_tower.sources",
    ),
    (
        {"augment.crop": 0.1, "user_tower.name": "bert4rec"},
        "augment.crop: 'bert4rec' hides items of its windows already; set 0",
    ),
    ({"head.fusion": ("random",)}, "head.fusion: 'random' is not one of"),
    ({"head.fusion": ("ease", "ease")}, "head.fusion: .* contains a baseline twice"),
    ({"head.fusion_weights": ()}, r"head.fusion_weights: \(\) has no weight"),
    ({"head.seen_bias": (-1.0,)}, "head.seen_bias: seen items are masked"),
    (
        {"head.seen_bias": (True,), "eval.mask_seen": False},
        "head.seen_bias: True is not a number",
    ),
    ({"head.fusion": ("auto", "ease")}, "head.fusion: 'auto' chooses the baselines"),
    (
        {"head.fusion": ("text",), "item_tower.sources": ("id",)},
        "head.fusion: 'text' needs 'text' in item_tower.sources",
    ),
    (
        {"eval.baselines": ("text",), "item_tower.sources": ("id",)},
        "eval.baselines: 'text' needs 'text' in item_tower.sources",
    ),
    ({"train.phases": ()}, r"train.phases: \(\) is not a tuple of phase"),
    ({"train.phases": (1,)}, r"train.phases: \(1,\) is not a tuple of phase"),
    (
        {"train.phases": (base.phase("a/b"),)},
        "train.phases: name 'a/b' must have only letters",
    ),
    (
        {"train.phases": (base.phase("a"), base.phase("a"))},
        "train.phases: two of a, a have the same name",
    ),
    (
        {"train.phases": (base.phase("a", epochs=0),)},
        "train.phases: no phase has any epochs",
    ),
    (
        {
            "user_tower.name": "graph",
            "train.phases": (base.phase("a", negatives="stale"),),
        },
        "phase a: negatives: 'stale'; a graph tower reads all items",
    ),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_every_rule_is_enforced(changes, message):
    with pytest.raises(UserError, match=f"^{message}") as e:
        check_config(config_with(changes))
    assert "\n" not in str(e.value)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(validate, "find_spec", lambda library: None)
    with pytest.raises(UserError, match="'bpr_mf' needs the library implicit"):
        check_config(config_with({"eval.baselines": ("bpr_mf",)}))


def test_several_processes_share_the_batch(monkeypatch):
    monkeypatch.setattr(validate.jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"mesh\.model: 2 with several processes"):
        check_config(config_with({"mesh.model": 2}))


def test_seeds_have_31_bits():
    check_config(config_with({"seed": 2**31 - 1}))
    for key in ("seed", "data.split_seed"):
        message = f"{key}: 2147483648 is not at least 0 and at most 2,147,483,647"
        with pytest.raises(UserError, match=message):
            check_config(config_with({key: 2**31}))


def test_nan_is_never_a_value():
    for name, key in KEYS.items():
        if isinstance(key.default, float):
            with pytest.raises(UserError, match=f"^{label(name)}: nan is not"):
                check_config(with_value(name, float("nan")))


def test_infinite_values_are_refused_where_they_mean_no_limit():
    with pytest.raises(UserError, match="phase towers: lr: inf is not a finite number"):
        check_config(config_with({"train.phases": (base.phase("towers", lr=1e999),)}))
    with pytest.raises(UserError, match=r"head.fusion_weights: -inf is not a finite"):
        check_config(config_with({"head.fusion_weights": (-1e999, 0.0)}))
    check_config(
        config_with({"data.rating": "r", "data.rating_range": (0.0, float("inf"))})
    )


def test_long_names_of_phases_are_refused():
    check_config(config_with({"train.phases": (base.phase("a" * 64),)}))
    with pytest.raises(UserError, match="has more than 64 characters"):
        check_config(config_with({"train.phases": (base.phase("a" * 65),)}))
