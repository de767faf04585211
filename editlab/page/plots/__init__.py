"""Figures of a session: pure functions from its state to columns, and Bokeh charts that show them."""
