"""The generated blocks about the conformance suite: its checks, its options, what it found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from read_source import table

from llamastack_conformance.catalogue import catalogue
from llamastack_conformance.options import add_options
from llamastack_conformance.report import ProviderResults, read
from llamastack_conformance.store_under_test import STORE

RESULTS = Path(__file__).parents[1] / "docs" / "conformance-results.json"
_GROUPS = (
    "received",
    "wholes",
    "vectors",
    "usage",
    "listing",
    "life",
    "restart",
    "failure",
    "nth-request",
    "stress",
    "static",
)


def checks(tier: str) -> str:
    """The checks of one tier."""
    rows = (
        (f"`{check.id}`", ", ".join(apis) if len(apis) < 5 else "all", check.wanted, check.mend)
        for check, apis in catalogue()
        if check.tier == tier and apis != (STORE,)
    )
    return table(("check", "of the APIs", "what is wanted", "how to mend what fails"), rows)


def checks_of_stores(_: str) -> str:
    """The checks of stores."""
    rows = [
        (f"`{check.id}`", check.tier.value, check.wanted, check.mend) for check, apis in catalogue() if apis == (STORE,)
    ]
    return table(("check", "tier", "what is wanted", "how to mend what fails"), rows)


def options(_: str) -> str:
    """The options that the plugin adds to pytest."""
    group = pytest.Parser(_ispytest=True).getgroup("llamastack")
    add_options(group)
    rows = []
    for option in group.options:
        attributes = option.attrs()
        metavar = attributes.get("metavar")
        shown = f"`{option.names()[0]}{f' {metavar}' if metavar else ''}`"
        rows.append((shown, str(attributes["help"])))
    return table(("option", "what"), rows)


def results(_: str) -> str:
    """What the suite found of every provider of this repository: a row each, its capabilities and groups in columns."""
    text = ""
    found = read(RESULTS)
    for api in dict.fromkeys(provider.api for provider in sorted(found, key=lambda p: p.api != "inference")):
        mine = sorted((p for p in found if p.api == api), key=lambda p: p.provider_type)
        topics = sorted({topic for p in mine for topic in p.capabilities})
        rows = (_row(provider, topics, _label(provider, mine)) for provider in mine)
        text += f"### {api}\n\n" + table(("provider", *topics, *_GROUPS, "in all"), rows) + "\n"
    return text


def _label(provider: ProviderResults, others: list[ProviderResults]) -> str:
    """The type; and the class of the suite where a type has several, with different configs."""
    several = sum(each.provider_type == provider.provider_type for each in others) > 1
    return f"`{provider.provider_type}`" + (f" ({provider.suite})" if several else "")


def _row(provider: ProviderResults, topics: list[str], label: str) -> tuple[str, ...]:
    verdicts = {topic: (declared, verdict) for topic, declared, verdict in provider.rows()}
    cells = [_cell(*verdicts.get(topic, ("", ""))) for topic in topics]
    cells += [_counted(verdicts.get(group, ("", ""))[1]) for group in _GROUPS]
    return label, *cells, provider.summary()


def _cell(declared: str, verdict: str) -> str:
    """What is declared, where it was proved; else what was found."""
    if verdict == "refused":
        return "no" if declared == "unsupported" else declared
    if all(part.endswith(" passed") for part in verdict.split(", ")):
        return "yes" if declared == "supported" else declared
    return verdict


def _counted(verdict: str) -> str:
    """`14 passed, 2 not applicable` as `14 of 14`."""
    counts = {part.partition(" ")[2]: int(part.partition(" ")[0]) for part in verdict.split(", ") if part[:1].isdigit()}
    tried = sum(count for status, count in counts.items() if status != "not applicable")
    return f"{counts.get('passed', 0)} of {tried}" if tried else "-"


BLOCKS: dict[str, Callable[[str], str]] = {
    "conformance-checks": checks,
    "conformance-checks-of-stores": checks_of_stores,
    "conformance-options": options,
    "conformance-results": results,
}
