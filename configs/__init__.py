"""Configs: `base.py` declares every key, each other file is a run."""
