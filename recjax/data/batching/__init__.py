"""Training and evaluation batches."""
