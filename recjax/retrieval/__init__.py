"""Scores of all candidates and their top k."""
