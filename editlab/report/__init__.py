"""Runs and sessions as pages that need nothing else; their charts as SVG."""
