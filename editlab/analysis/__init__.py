"""Judgements on records: health, risk, anatomy, culprits, scans, tables. No torch."""
