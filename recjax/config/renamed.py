"""Keys that have been renamed, so that an error for an old key names the new one."""

import re

RENAMED = {
    "data.shares": "data.split_fractions",
    "data.stem": "data.file_prefix",
    "eval.before": "eval.zero_shot",
    "eval.resamples": "eval.bootstrap_samples",
    "head.memory": "head.fusion",
    "head.memory_floor": "head.fusion_floor",
    "head.memory_weights": "head.fusion_weights",
    "loss.calibration": "loss.gbce_t",
    "loss.k": "loss.negatives_per_positive",
    "text.prefix_disk": "text.cache_disk_gib",
    "text.prefix_dtype": "text.cache_dtype",
    "text.prefix_memory": "text.cache_ram_gib",
}


def describe_rename(key: str) -> str:
    """Names the new key of an old one; "" if it was not renamed."""
    return f"{key} is now called {RENAMED[key]}" if key in RENAMED else ""


def find_rename(message: str) -> str:
    """Returns `describe_rename` for a message like "no key 'memory'"."""
    # ml_collections names no section, but old keys differ in their last part.
    found = re.search(r"no key '(\w+)'", message)
    keys = [key for key in RENAMED if found and key.rpartition(".")[2] == found[1]]
    return describe_rename(keys[0]) if keys else ""
