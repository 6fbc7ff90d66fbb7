"""Finds, reads and checks the files of a data set."""
