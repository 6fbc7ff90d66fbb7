"""Helpers without a dependency on any other package of recjax."""
