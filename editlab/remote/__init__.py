"""A lab in another process: what is said over the wire, the client, the server."""
