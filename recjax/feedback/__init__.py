"""Learns from the events of a service: new weights, a test, and a promotion."""
