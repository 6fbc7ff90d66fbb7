"""A finished run as a model: its files, and recommendations from them."""
