"""Measurements and reproduced tables, each made by one command."""
