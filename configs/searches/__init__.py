"""Spaces to search, each around a config."""
