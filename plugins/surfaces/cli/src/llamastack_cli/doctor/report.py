"""What the checks found, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import click

from llamastack.provider.validation_paths import path_of
from llamastack_cli.output import say, show_json, show_table, without_secrets

_LONGEST_MESSAGE = 300


class Outcome(StrEnum):
    """How a check ended."""

    OK = "OK"
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True)
class Place:
    """Where something stands: in a run config, 1-based line if known, and its key path."""

    file: str
    line: int | None = None
    path: str = ""

    @classmethod
    def of(cls, file: str, line: int | None, keys: tuple[str | int, ...]) -> Place:
        return cls(file, line, path_of(keys))

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f':{self.line}'}{f': {self.path}' if self.path else ''}"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    name: what was checked. about: the thing it was checked on, such as `inference foo`. message: what was found.
    duration_s: seconds; None if it takes no time worth showing. place: where the run config can be changed.
    backend: address of the backend. advice: what to do next.
    """

    name: str
    about: str
    outcome: Outcome
    message: str = ""
    duration_s: float | None = None
    place: Place | None = None
    backend: str | None = None
    advice: str | None = None

    def to_json(self) -> dict[str, object]:
        place = self.place
        return {
            "check": self.name,
            "about": self.about,
            "outcome": self.outcome.value,
            "message": without_secrets(self.message),
            "duration_s": None if self.duration_s is None else round(self.duration_s, 3),
            "place": place and {"file": place.file, "line": place.line, "path": place.path},
            "backend": self.backend,
            "advice": self.advice and without_secrets(self.advice),
        }


def show_report(file: str, checks: Sequence[Check], exit_code: int, *, as_json: bool) -> None:
    """All checks, then for each problem where it is and what to do."""
    if as_json:
        show_json({"file": file, "ok": exit_code == 0, "checks": [check.to_json() for check in checks]})
        return
    show_table(
        ("RESULT", "CHECK", "OF", "SECONDS", "FOUND"),
        [(check.outcome, check.name, check.about, _seconds(check), _short(check.message)) for check in checks],
    )
    problems = [check for check in checks if check.outcome is Outcome.FAIL]
    for check in problems:
        click.echo()
        say(without_secrets(f"{check.name} of {check.about}: {' '.join(check.message.split())}"))
        if check.place is not None:
            say(f"  where: {check.place}")
        if check.backend is not None:
            say(f"  backend: {check.backend}")
        if check.advice is not None:
            say(without_secrets(f"  what to do: {check.advice}"))
    click.echo()
    counts = {outcome: sum(check.outcome is outcome for check in checks) for outcome in Outcome}
    say(f"{file}: {counts[Outcome.OK]} OK, {counts[Outcome.FAIL]} failed, {counts[Outcome.SKIPPED]} skipped")


def _seconds(check: Check) -> str:
    return "" if check.duration_s is None else f"{check.duration_s:.1f}"


def _short(message: str) -> str:
    text = " ".join(without_secrets(message).split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."
