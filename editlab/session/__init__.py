"""One log of edits over a base: what was measured of it, what-ifs beside it, recording and replay."""
