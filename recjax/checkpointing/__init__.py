"""Verified checkpoints of a run."""
