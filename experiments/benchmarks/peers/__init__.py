"""The other tools, which run in their own environments without recjax."""
