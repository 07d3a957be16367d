"""Cassettes: what a backend answered is recorded once, and replayed without the backend."""
