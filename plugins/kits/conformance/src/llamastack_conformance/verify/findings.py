"""What `llamastack providers verify` finds out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "fault", "not checked"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    check: its id. wanted: what a package must do. got: what is wrong, or why it was not checked. mend: what to change.
    """

    check: str
    status: Status
    wanted: str
    got: str = ""
    mend: str = ""

    def to_json(self) -> Mapping[str, str]:
        """Only what is known."""
        fields = {"check": self.check, "status": self.status, "wanted": self.wanted, "got": self.got, "mend": self.mend}
        return {name: value for name, value in fields.items() if value}


@dataclass(frozen=True, slots=True)
class Dependency:
    """A distribution that the package requires.

    required: as the package says it. version: that is installed; None if none is. license: as its metadata says it.
    """

    name: str
    required: str
    version: str | None
    license: str | None
    fits: bool
