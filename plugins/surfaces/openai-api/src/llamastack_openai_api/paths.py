"""Where the routes of this package are."""

from __future__ import annotations

PREFIX = "/v1/"
"""The prefix of all their paths."""
