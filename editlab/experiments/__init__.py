"""Long runs without a page: sequences, scans, clusters, checks against references and published figures."""
