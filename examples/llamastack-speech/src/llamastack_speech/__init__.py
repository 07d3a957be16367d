"""The API `speech` for llamastack."""
