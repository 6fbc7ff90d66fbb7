"""Finished runs as tables and plots."""
