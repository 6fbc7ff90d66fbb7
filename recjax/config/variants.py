"""The variants of a config, which a sweep compares.

A config with a sweep has a function `sweep(add)`, which calls `add(name, changes)` for
each variant, the reference first; changes are by flat key, as in
`{"item_tower.pooling": "cls"}`. Its `get_config("cls")` returns this variant.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

Changes = Mapping[str, Any]  # config values by flat key
Add = Callable[[str, Changes], None]
VARIANT_NAME = re.compile(r"\w[\w .,+=()%~-]*")  # also the name of a directory
FILE_NAME = re.compile(r".*\.[A-Za-z]\w*")  # a sweep's directory also has files
MAX_VARIANT_NAME = 100  # bytes


def pick(config: ConfigDict, variant: str, sweep: Callable[[Add], None]) -> ConfigDict:
    """Returns the config with the changes of one variant, locked.

    Raises:
      ValueError: no such variant, or a value of the wrong type.
    """
    variants = read_variants(sweep)
    if variant not in variants:
        raise ValueError(f"no variant {variant!r}; choose one of {', '.join(variants)}")
    for key, value in variants[variant].items():
        try:
            config.update_from_flattened_dict({key: value})
        except TypeError:
            hint = f"; write ({value!r},)" if isinstance(value, str) else ""
            kind = type(operator.attrgetter(key)(config)).__name__
            raise ValueError(
                f"variant {variant!r}: {key} is a {kind}, not {value!r}{hint}"
            ) from None
    return config.lock()


def read_variants(sweep: Callable[[Add], None]) -> dict[str, Changes]:
    """Calls `sweep(add)` and returns the variants in their order, the reference first.

    Raises:
      ValueError: there is no variant, or a name is invalid or appears twice.
    """
    variants: dict[str, Changes] = {}

    def add(name: str, changes: Changes) -> None:
        if not (isinstance(name, str) and VARIANT_NAME.fullmatch(name)):
            raise ValueError(
                f"{name!r} is not a variant name; use letters, digits, spaces and any "
                "of _ . , + = ( ) % ~ -"
            )
        if FILE_NAME.fullmatch(name) or len(name.encode()) > MAX_VARIANT_NAME:
            raise ValueError(
                f"{name!r} is not a variant name; use at most {MAX_VARIANT_NAME} "
                "bytes, and no ending like .json"
            )
        if name in variants:
            raise ValueError(f"variant {name!r} appears twice")
        variants[name] = dict(changes)  # a loop in `sweep` may modify its own dict

    sweep(add)
    if not variants:
        raise ValueError("the sweep has no variants")
    return variants
