"""Devices, processes, compilation, signals and locks."""
