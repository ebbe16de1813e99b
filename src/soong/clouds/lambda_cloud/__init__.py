"""Lambda Cloud, through its public API v1."""
