"""How fast a model answers on a GPU: prefill and decode, per user and in all."""
