"""Reads data sets, splits them and makes batches."""
