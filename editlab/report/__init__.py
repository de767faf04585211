"""Runs and sessions as self-contained pages; their charts as SVG."""
