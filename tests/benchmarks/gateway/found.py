"""What was measured of one surface, and two of them beside each other."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Found:
    """By measure, a value for each round; and what went wrong, which is in no value."""

    values: dict[str, dict[int, float]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    missing: str | None = None
    """Why it cannot be measured here."""
    dead: bool = False
    """It did not start, or answers wrongly: it is left out from then on."""

    def add(self, measure: str, round_: int, value: float) -> None:
        self.values.setdefault(measure, {})[round_] = value

    def median(self, measure: str) -> float | None:
        of_rounds = self.values.get(measure)
        return statistics.median(of_rounds.values()) if of_rounds else None


def median_beside(one: Found, other: Found, measure: str, together: Callable[[float, float], float]) -> float | None:
    """Median of what each round's two values come to together, so that what disturbed a round cancels out."""
    ours, theirs = one.values.get(measure, {}), other.values.get(measure, {})
    both = [together(ours[n], theirs[n]) for n in ours if n in theirs]
    return statistics.median(both) if both else None
