"""The vocabulary of all other rooms: facts, records, errors, progress, paths, files. No torch."""
