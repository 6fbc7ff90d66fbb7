"""Example configs; `recjax.config` declares the keys and their defaults."""
