"""How fast, side by side with the plain way: `python -m benchmarks.edit --help`, run from the project's root."""
