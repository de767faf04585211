"""One model: its weights, tokens, family, loading, and what it says."""
