"""Serving: from a machine that computes to an endpoint that answers; what goes wrong in between, explained."""
