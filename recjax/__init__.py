"""Personalised recommendation with pretrained language models, in JAX."""
