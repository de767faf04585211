"""Inside one model: what it would say after every block, and which of its activations carry a fact."""
