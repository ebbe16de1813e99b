"""Name a model; learn what it needs, what holds it and what that costs."""
