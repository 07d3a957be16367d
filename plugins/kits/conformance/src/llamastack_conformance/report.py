"""The report of a run: for the terminal, as JSON and Markdown, compared with an earlier one, and as a badge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PASSED, FAILED, WAIVED, WARNED, NOT_APPLICABLE = "passed", "failed", "waived", "warned", "not applicable"
NOT_TRIED = "not tried"
FORMAT = 2
"""Version of the JSON format that is written."""
_KNOWN_FORMATS = (1, FORMAT)
"""Those that are read. Format 1 has no durations, no waivers, and of a failure only its `detail`."""
_SLOWEST = 10
_DERIVED = ("checks", "conforms", "counts", "slowest")
"""Keys of a provider in the JSON form that follow from its results."""


class ReportError(Exception):
    """A report cannot be read or written."""


@dataclass(frozen=True)
class Result:
    """The result of one check.

    status: passed, failed, not tried (an earlier check has failed by what keeps this one from running), waived, warned
    (failed, but newer than the pinned suite, or its waiver says that it depends on the model), or not applicable.
    detail: for people. wanted, got, mend: of a check that did not do what it should. duration_s: seconds that it took.
    waiver: kind, reason, link and expires of its waiver, those that it has.
    """

    id: str
    tier: str
    since: str
    capability: str | None
    status: str
    detail: str = ""
    wanted: str = ""
    got: str = ""
    mend: str = ""
    duration_s: float = 0.0
    waiver: dict[str, str] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        return self.id.partition(".")[0]


@dataclass
class ProviderResults:
    """All results of one suite. suite: the name of its class; a provider may have several, with different configs."""

    suite: str
    api: str
    provider_type: str
    package: str
    version: str
    capabilities: dict[str, str]
    results: list[Result] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.api}={self.provider_type}"

    @property
    def counts(self) -> Counter[str]:
        return Counter(result.status for result in self.results)

    @property
    def conforms(self) -> bool:
        """Whether a check passed, none failed, and all were tried."""
        return bool(self.counts[PASSED]) and not self.counts[FAILED] and not self.counts[NOT_TRIED]

    @property
    def slowest(self) -> list[Result]:
        """The checks that took the most time, the slowest first."""
        return sorted(self.results, key=lambda result: (-result.duration_s, result.id))[:_SLOWEST]

    def summary(self) -> str:
        """`52 passed, 1 failed`."""
        return _counted(self.counts)

    def rows(self) -> Iterable[tuple[str, str, str]]:
        """(topic, what the spec declares of it, result), capabilities first."""
        topics: dict[str, list[Result]] = {}
        for result in self.results:
            topics.setdefault(result.topic, []).append(result)
        for topic in [
            *(t for t in self.capabilities if t in topics),
            *(t for t in topics if t not in self.capabilities),
        ]:
            yield topic, self.capabilities.get(topic, ""), _verdict(topics[topic])

    def badge(self) -> str:
        """A line of Markdown for a README: an image by shields.io (https://shields.io/badges/static-badge)."""
        counts = self.counts
        wanted = sum(counts.values()) - counts[NOT_APPLICABLE]
        colour = "brightgreen" if self.conforms else "red"
        text = f"{counts[PASSED]}%2F{wanted}%20checks"
        return f"![llamastack conformance](https://img.shields.io/badge/llamastack%20conformance-{text}-{colour})"


def _counted(counts: Counter[str]) -> str:
    order = (PASSED, FAILED, NOT_TRIED, WARNED, WAIVED, NOT_APPLICABLE)
    return ", ".join(f"{counts[status]} {status}" for status in order if counts[status])


def _verdict(results: Sequence[Result]) -> str:
    counts = Counter(result.status for result in results)
    if set(counts) == {PASSED} and any(result.id.endswith(".refused") for result in results):
        return "refused"
    if set(counts) == {NOT_APPLICABLE}:
        return NOT_APPLICABLE
    return _counted(counts)


def terminal_table(provider: ProviderResults) -> list[str]:
    """Lines of a table: capability or topic, what is declared, what was found."""
    rows = [("", "declared", "result"), *provider.rows()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]
    lines += [
        f"{status}: {', '.join(ids)}: {why}"
        for status in (NOT_APPLICABLE, WARNED, WAIVED)
        for why, ids in _by_reason(provider, status).items()
    ]
    lines += [
        f"not tried: {len(ids)} {'check' if len(ids) == 1 else 'checks'}: {why}"
        for why, ids in _by_reason(provider, NOT_TRIED).items()
    ]
    return [
        *lines,
        f"{'conforms' if provider.conforms else 'does NOT conform'}: {provider.summary()}",
        provider.badge(),
    ]


def _by_reason(provider: ProviderResults, status: str) -> dict[str, list[str]]:
    """The ids of the checks with this status, by the first line of the reason."""
    found: dict[str, list[str]] = {}
    for result in provider.results:
        if result.status == status:
            found.setdefault(result.detail.partition("\n")[0], []).append(result.id)
    return found


def to_json(providers: Iterable[ProviderResults], suite_version: str) -> str:
    """The report as JSON. The order of the results does not change it."""
    found = [
        {
            **{name: value for name, value in asdict(provider).items() if name != "results"},
            "conforms": provider.conforms,
            "counts": dict(sorted(provider.counts.items())),
            "slowest": [{"id": result.id, "duration_s": result.duration_s} for result in provider.slowest],
            "checks": [_check_as_json(result) for result in sorted(provider.results, key=lambda result: result.id)],
        }
        for provider in sorted(providers, key=lambda provider: (provider.name, provider.suite))
    ]
    return json.dumps({"format": FORMAT, "suite_version": suite_version, "providers": found}, indent=1) + "\n"


def _check_as_json(result: Result) -> dict[str, Any]:
    """All fields; those of checks that did not pass only if there is something in them."""
    optional = ("wanted", "got", "mend", "waiver")
    return {name: value for name, value in asdict(result).items() if value or name not in optional}


def from_json(text: str) -> list[ProviderResults]:
    """The results in a JSON report of any known format. Raises ReportError if it is no report."""
    try:
        document = json.loads(text)
        if document["format"] not in _KNOWN_FORMATS:
            known = " and ".join(map(str, _KNOWN_FORMATS))
            raise ReportError(f"it has format {document['format']}, but only {known} are known")
        return [
            ProviderResults(
                **{name: value for name, value in provider.items() if name not in _DERIVED},
                results=[Result(**result) for result in provider["checks"]],
            )
            for provider in document["providers"]
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ReportError(f"this is no conformance report: {error}") from None


def to_markdown(providers: Iterable[ProviderResults]) -> str:
    """The report for people."""
    parts: list[str] = []
    for provider in sorted(providers, key=lambda p: (p.name, p.suite)):
        parts += [
            f"## `{provider.provider_type}` for {provider.api}\n",
            f"{provider.badge()}\n",
            f"{provider.package} {provider.version}: {provider.summary()}.\n",
            "| | declared | result |\n|---|---|---|",
            *(f"| {topic} | {declared} | {verdict} |" for topic, declared, verdict in provider.rows()),
            "",
        ]
        others = [r for r in provider.results if r.status not in (PASSED, NOT_TRIED)]
        listed = [f"- `{r.id}` {r.status}: {' '.join(r.detail.split())}" for r in others]
        listed += [f"- {len(ids)} checks not tried: {why}" for why, ids in _by_reason(provider, NOT_TRIED).items()]
        if listed:
            parts += [*listed, ""]
    return "\n".join(parts)


def write(file: Path, providers: Sequence[ProviderResults], suite_version: str) -> None:
    """Write a report, as JSON to a file that ends in .json, as Markdown to one that ends in .md."""
    text = to_json(providers, suite_version) if file.suffix == ".json" else to_markdown(providers)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{file}: cannot be written: {error}") from None


def read(file: Path) -> list[ProviderResults]:
    """An earlier report in JSON. Raises ReportError."""
    try:
        return from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{file}: cannot be read: {error}") from None
    except ReportError as error:
        raise ReportError(f"{file}: {error}") from None


def regressions(before: Iterable[ProviderResults], now: Iterable[ProviderResults], tiers: Iterable[str]) -> list[str]:
    """The checks that passed before and do not now, as text. Providers and tiers that did not run do not count."""
    current = list(now)
    found = []
    for provider in before:
        mine = [p for p in current if p.name == provider.name]
        # If a class was renamed, it is found as the only suite of its provider.
        same = mine if len(mine) == 1 else [p for p in mine if p.suite == provider.suite]
        if not same:
            continue
        checks = {result.id: result for result in same[0].results}
        untried = 0
        for result in provider.results:
            if result.status == PASSED and result.tier in tiers:
                status = checks[result.id].status if result.id in checks else "gone"
                untried += status == NOT_TRIED
                if status not in (PASSED, NOT_TRIED):
                    found.append(f"{provider.name} {result.id}: was passed, is {status}")
        if untried:
            found.append(f"{provider.name}: {untried} checks that passed are not tried")
    return found
