"""Item towers: sources of item vectors and their combination."""
