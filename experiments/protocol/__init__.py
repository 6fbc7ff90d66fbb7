"""Evaluates the same models under several protocols."""
