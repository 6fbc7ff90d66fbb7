"""Ranking of the catalogue, ranking metrics, and reports of both."""
