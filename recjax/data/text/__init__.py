"""Tokenises item texts and packs them into rows."""
