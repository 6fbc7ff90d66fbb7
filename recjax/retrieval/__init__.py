"""Scores all candidates and selects the top k."""
