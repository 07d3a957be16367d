"""HTTP as client, server and adapters share it: the client with its limits, server-sent events, kept connections."""
