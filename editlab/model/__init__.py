"""One model: its weights, tokens, family, loading, and its answers."""
