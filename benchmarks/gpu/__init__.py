"""One prepared check for a machine with a GPU: `python -m benchmarks.gpu --help`, run from the project's root."""
