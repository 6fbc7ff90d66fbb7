"""Plans and runs sweeps."""
