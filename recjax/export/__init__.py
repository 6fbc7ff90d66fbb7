"""Exports a trained model for programs without recjax."""
