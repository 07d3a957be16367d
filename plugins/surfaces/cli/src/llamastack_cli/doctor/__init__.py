"""`llamastack doctor`: check a run config, start its providers, and call each once."""
