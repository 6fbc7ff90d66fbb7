"""Search spaces, each over the keys of a config."""
