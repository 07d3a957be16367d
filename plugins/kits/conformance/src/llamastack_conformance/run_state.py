"""What a run of pytest knows of its suites: the options, the results, and what each test is."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from llamastack_conformance.options import Asked

if TYPE_CHECKING:
    from llamastack_conformance.checks import Check
    from llamastack_conformance.configured import ConfiguredProvider
    from llamastack_conformance.outcomes import Causes
    from llamastack_conformance.report import ProviderResults
    from llamastack_conformance.store_under_test import ConfiguredStore
    from llamastack_conformance.waivers import Waiver


@dataclass
class State:
    """The options and the results of one run.

    totals: how many checks a suite, by its name, has in a tier. classes: the node ids of suites. Processes that only
    collect results, as with pytest-xdist, learn of them by the first result.
    """

    asked: Asked
    suites: list[type] = field(default_factory=list)
    waivers: dict[type, list[Waiver]] = field(default_factory=dict)
    configured: dict[type, ConfiguredProvider | ConfiguredStore] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    causes: dict[type, Causes] = field(default_factory=dict)
    results: dict[tuple[str, str], ProviderResults] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    cassettes: list[str] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    totals: Counter[tuple[str, str]] = field(default_factory=Counter)
    classes: set[str] = field(default_factory=set)

    def may_be_check(self, node_id: str) -> bool:
        """Whether a test is in a class that is known to be a suite."""
        of_class = node_id.rpartition("::")[0]
        return of_class in self.classes or of_class.rpartition("::")[2] in {suite.__name__ for suite in self.suites}


STATE = pytest.StashKey[State]()


def check_of_item(item: pytest.Item) -> Check | None:
    """The check that a test is, or None."""
    if "llamastack_conformance.checks" not in sys.modules or not isinstance(item, pytest.Function):
        return None
    from llamastack_conformance.checks import check_of

    return check_of(item.function)


def type_of(suite: Any) -> str:
    """The provider type, or the name of the store, that a suite is for."""
    kind = getattr(suite, suite.type_attribute, None)
    if not isinstance(kind, str):
        raise pytest.UsageError(f"{suite.__name__}: set {suite.type_attribute} to what is under test")
    return kind


def title_of(item: pytest.Item) -> str:
    """What is under test: `inference=remote::tgi`."""
    suite: Any = item.cls  # type: ignore[attr-defined]
    return f"{suite.api}={type_of(suite)}"


def configured(suite: Any, config: pytest.Config) -> Any:
    """The provider or store without a run config."""
    from llamastack_conformance.configured import SubjectError

    state = config.stash[STATE]
    if suite not in state.configured:
        try:
            state.configured[suite] = suite.configured(type_of(suite))
        except SubjectError as error:
            raise pytest.UsageError(f"{suite.__name__}: {error}") from None
    return state.configured[suite]
