"""A running stack over HTTP."""
