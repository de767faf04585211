"""What a method needs besides the fact: contexts, second moments, texts, the risk and the guard."""
