"""One model, many sessions: the protocol, the queue, limits, the store, the catalogue."""
