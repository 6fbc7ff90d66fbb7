"""Outputs of a run for people: console, TensorBoard, W&B, tables and pages."""
