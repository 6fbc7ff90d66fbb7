"""The other tools; they run in environments of their own, without recjax."""
