"""editlab: a laboratory for knowledge editing in language models."""

__version__ = "0.1.0"
