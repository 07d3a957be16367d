"""The command `llamastack run`."""
