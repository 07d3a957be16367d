"""Floor 4: a running stack over HTTP."""
