"""What everything else speaks of: facts, records, errors, progress, paths, files. No torch."""
