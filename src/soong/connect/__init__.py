"""Station 10, reach it: SSH with a pinned host key, under a name."""
