"""Prometheus metrics of a stack, counted by its hooks."""
