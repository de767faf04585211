"""What a method needs beside the fact: contexts, second moments, texts, the risk and the guard."""
