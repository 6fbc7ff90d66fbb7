"""Ranking, metrics and what is reported of them."""
