"""One request of many that goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What goes wrong with one request; the value says it in words."""

    error = "answered with 500"
    missing = "answered with 404"
    closed = "not answered: its connection closed"
    lost = "carried out, and its answer lost"


@dataclass
class Breakage:
    """One request that goes wrong, counted from the moment when the tap got this.

    number: of the request, from 1. seen: requests so far. happened: whether the request came.
    """

    number: int
    fault: Fault
    seen: int = 0

    @property
    def happened(self) -> bool:
        return self.seen >= self.number

    @property
    def later(self) -> int:
        """How many requests came after the one that went wrong."""
        return max(0, self.seen - self.number)

    def next(self) -> Fault | None:
        """Count one request; what goes wrong with it, if something does."""
        self.seen += 1
        return self.fault if self.seen == self.number else None
