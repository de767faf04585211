"""One log of edits over a base: its measurements, probes, recording and replay."""
