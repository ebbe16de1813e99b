"""Which model? Its build, its weights, and what it is good for."""
