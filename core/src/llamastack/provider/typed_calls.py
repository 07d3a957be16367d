"""The APIs as callers see them: types alone, which stand in the stub file beside, made by `make generate`."""

from __future__ import annotations


class Apis:
    """The built-in APIs as attributes; which of them are really there depends on the run config."""
