"""Layers between frozen text vectors and the towers; similarity of the vectors."""
