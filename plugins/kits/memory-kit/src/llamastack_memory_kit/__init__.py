"""For authors of memory providers."""
