"""Towers, heads and the pretrained encoder, as linen modules."""
