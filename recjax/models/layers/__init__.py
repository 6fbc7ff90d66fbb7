"""Layers that encoders and towers share."""
