"""llamastack."""
