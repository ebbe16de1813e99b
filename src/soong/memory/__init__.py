"""How much GPU memory a model takes: weights, caches, activations, graphs, runtime, for each engine."""
