"""A lab in another process: the HTTP protocol, the client and the server."""
