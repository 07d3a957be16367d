"""Help for authors of memory providers."""
