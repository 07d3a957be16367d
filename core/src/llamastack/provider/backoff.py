"""How long to wait before something that failed is tried again."""

from __future__ import annotations

_MOST_DOUBLINGS = 60


def pause_s(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds: `first_s` after one failure, twice as long after each further one, at most `longest_s`; 0 for none."""
    return min(first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest_s) if failures else 0.0
