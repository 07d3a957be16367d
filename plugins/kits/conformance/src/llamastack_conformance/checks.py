"""A check is an async method of a suite with an id, a tier, a requirement, and advice for a provider that fails."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from llamastack_conformance.check_runner import CheckRunner

_Subject = TypeVar("_Subject", bound="CheckRunner")

SUITE_VERSION = "1.0"
"""The newest `since` of any check; a run can be pinned to an older one."""
_CHECK = "__llamastack_check__"
_ID = re.compile(r"^[a-z0-9_]+(-[a-z0-9_]+)*\.[a-z0-9_]+(-[a-z0-9_]+)*$")


class Tier(StrEnum):
    """What a check does to a provider.

    - `static`: no network, no started provider.
    - `live`: calls of the backend.
    - `stress`: many calls at once.
    - `failure`: faults of the backend and of the connection.
    """

    static = "static"
    live = "live"
    stress = "stress"
    failure = "failure"


@dataclass(frozen=True, slots=True)
class Check:
    """What a check wants, and when it applies.

    id: stable name, `<topic>.<what>`. tier: see `Tier`. since: the version of the suite that added it.

    wanted: what a provider must do. mend: what to change if it does not. capability: the capability that the check is
    about. declared: whether the check applies to providers that declare the capability, or to those that do not.
    not_replayed: why the check cannot run with a cassette in the place of the backend; "" if it can.
    """

    id: str
    tier: Tier
    since: str
    wanted: str
    mend: str
    capability: str | None = None
    declared: bool = True
    not_replayed: str = ""

    @property
    def topic(self) -> str:
        """The first part of the id, by which reports group checks."""
        return self.id.partition(".")[0]

    def newer_than(self, version: str) -> bool:
        """Whether a run that is pinned to `version` of the suite leaves it out."""
        return version_key(self.since) > version_key(version)


class CheckFailure(AssertionError):
    """A provider does not do what a check wants.

    got: what it did instead. wanted, mend: texts that are more exact than those of the check.
    """

    def __init__(self, got: str, *, wanted: str | None = None, mend: str | None = None) -> None:
        super().__init__(got)
        self.got = got
        self.wanted = wanted
        self.mend = mend


class NotUsable(CheckFailure):
    """The provider cannot be tried, for a reason that every check meets: it is not installed, or never healthy.

    One check of a suite fails by it. Others that meet the same reason are not tried. again: an earlier check has
    met it.
    """

    def __init__(self, got: str, *, wanted: str | None = None, mend: str | None = None, again: bool = False) -> None:
        super().__init__(got, wanted=wanted, mend=mend)
        self.again = again


class NotApplicable(Exception):
    """The check cannot be tried on this provider with this configuration; the report says why."""


Body = Callable[[Any, _Subject], Awaitable[None]]
"""The method of a check: it gets the suite and the subject."""


def check(
    id: str,
    *,
    tier: Tier,
    mend: str,
    since: str = "1.0",
    capability: str | None = None,
    declared: bool = True,
    not_replayed: str = "",
) -> Callable[[Body[_Subject]], Callable[[Any, _Subject], None]]:
    """Make a test of an async method `(self, subject)`; its docstring states the requirement.

    The test is a plain function that runs the method in the subject's own event loop, so no other plugin decides
    whether and in which loop it runs. The arguments are the fields of `Check`. Raises ValueError if the id is not like
    `topic.what`, or if there is no docstring.
    """
    if not _ID.match(id):
        raise ValueError(f"{id!r}: the id of a check is like 'topic.what-it-is'")

    def mark(body: Body[_Subject]) -> Callable[[Any, _Subject], None]:
        wanted = " ".join((inspect.getdoc(body) or "").split())
        if not wanted:
            raise ValueError(f"check '{id}' has no docstring that states the requirement")
        described = Check(id, tier, since, wanted, mend, capability, declared, not_replayed)

        def test(self: Any, llamastack_subject: _Subject) -> None:
            llamastack_subject.run(described, body, self)

        test.__name__, test.__qualname__, test.__doc__ = body.__name__, body.__qualname__, body.__doc__
        setattr(test, _CHECK, described)
        return test

    return mark


def check_of(function: object) -> Check | None:
    """The check of a test, or None."""
    found = getattr(function, _CHECK, None)
    return found if isinstance(found, Check) else None


def checks_of(suite: type) -> Iterator[tuple[str, Check]]:
    """The method's name, and the check, of every check of a suite, in the order of the source, base classes first."""
    seen: set[str] = set()
    for cls in reversed(suite.__mro__):
        for name in vars(cls):
            found = check_of(getattr(suite, name, None))
            if found is not None and name not in seen:
                seen.add(name)
                yield name, found


def version_key(version: str) -> tuple[int, ...]:
    """`"1.10"` -> `(1, 10)`. Raises ValueError if the text is not numbers between dots."""
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise ValueError(f"{version!r} is no version; a version is numbers between dots")
    return tuple(int(number) for number in version.split("."))
