"""Training phases: optimizer, train step, loop."""
