"""Plans and runs sweeps of config variants."""
