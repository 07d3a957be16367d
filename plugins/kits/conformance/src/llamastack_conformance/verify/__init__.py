"""`llamastack providers verify`: what can be said of an installed provider without starting it."""
