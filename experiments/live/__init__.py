"""Replays of a data set's newest events through a live service."""
