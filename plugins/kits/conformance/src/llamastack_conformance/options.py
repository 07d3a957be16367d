"""The options of the pytest plugin. This module imports nothing of the core before an option needs it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

TIERS = ("static", "live", "stress", "failure")
"""In the order in which they run."""


@dataclass(frozen=True)
class Asked:
    """The options of a run.

    providers: (API, type) of the providers to check without a test file, with the run config `config`. stores: names of
    stores, likewise. tiers: the tiers to run. pinned: a version of the suite, or "". waivers, reports, compare: files.
    record, replay: a cassette, or a folder of cassettes; not both.
    """

    providers: tuple[tuple[str, str], ...]
    stores: tuple[str, ...]
    config: Path | None
    tiers: tuple[str, ...]
    pinned: str
    waivers: Path | None
    reports: tuple[Path, ...]
    compare: Path | None
    record: Path | None = None
    replay: Path | None = None


def add_options(group: pytest.OptionGroup) -> None:
    """Add the options to a group of pytest."""
    group.addoption(
        "--llamastack-provider",
        action="append",
        default=[],
        metavar="API=TYPE",
        help="Check this installed provider, such as inference=remote::tgi, without a test file. May be repeated.",
    )
    group.addoption(
        "--llamastack-store",
        action="append",
        default=[],
        metavar="NAME",
        help="Check this installed store, such as sqlite, without a test file. May be repeated.",
    )
    group.addoption(
        "--llamastack-config",
        metavar="FILE",
        help="Run config that contains the provider, or the settings of the store if it needs some.",
    )
    group.addoption(
        "--llamastack-tiers", metavar="LIST", default=",".join(TIERS), help=f"Of {','.join(TIERS)}; all by default."
    )
    group.addoption(
        "--llamastack-suite-version",
        metavar="X.Y",
        help="Pin the suite to a version: failures of newer checks only warn.",
    )
    group.addoption("--llamastack-waivers", metavar="FILE", help="YAML file of checks that are known to fail.")
    group.addoption(
        "--llamastack-report",
        action="append",
        default=[],
        metavar="FILE",
        help="Write a report: JSON to FILE.json, Markdown to FILE.md. May be repeated.",
    )
    group.addoption(
        "--llamastack-compare", metavar="OLD.json", help="Fail if a check fails that passed in an earlier report."
    )
    for what, does in (
        ("record", "Record what the backend answers into"),
        ("replay", "Replay what was recorded, from"),
    ):
        group.addoption(
            f"--llamastack-{what}",
            metavar="FILE",
            help=f"{does} FILE.json; for several suites a folder, with a file for each.",
        )
    group.addoption("--llamastack-list", action="store_true", help="List every check and exit.")


def read_options(given: argparse.Namespace) -> Asked:
    """The parsed options. Raises UsageError for a wrong value and for a report that cannot be read."""
    asked = Asked(
        providers=tuple(_provider(text) for text in given.llamastack_provider),
        stores=tuple(given.llamastack_store),
        config=_path(given.llamastack_config),
        tiers=_tiers(given.llamastack_tiers),
        pinned=given.llamastack_suite_version or "",
        waivers=_path(given.llamastack_waivers),
        reports=tuple(Path(file) for file in given.llamastack_report),
        compare=_path(given.llamastack_compare),
        record=_path(given.llamastack_record),
        replay=_path(given.llamastack_replay),
    )
    _require_order(asked, given)
    if asked.providers and asked.config is None:
        raise pytest.UsageError("--llamastack-provider needs --llamastack-config FILE, the provider's run config")
    for file in asked.reports:
        if file.suffix not in (".json", ".md"):
            raise pytest.UsageError(f"--llamastack-report: {file} must end in .json or .md")
    if asked.pinned:
        _require_version(asked.pinned)
    if asked.compare is not None:
        _require_report(asked.compare)
    return asked


def _require_order(asked: Asked, given: argparse.Namespace) -> None:
    """Raises UsageError if exchanges cannot be recorded or replayed in this way."""
    if asked.record is not None and asked.replay is not None:
        raise pytest.UsageError("--llamastack-record and --llamastack-replay: use one of the two")
    # The checks of a suite must run in one process: its cassette is one file, and has an order.
    if (asked.record or asked.replay) and getattr(given, "dist", "no") not in ("no", "loadgroup", "loadscope"):
        raise pytest.UsageError("--llamastack-record, --llamastack-replay: with -n use --dist loadgroup")


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _tiers(text: str) -> tuple[str, ...]:
    wanted = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [tier for tier in wanted if tier not in TIERS]
    if unknown or not wanted:
        raise pytest.UsageError(f"--llamastack-tiers: {text!r}: allowed are {', '.join(TIERS)}")
    return wanted


def _provider(text: str) -> tuple[str, str]:
    api, equals, kind = text.partition("=")
    if not equals or not api or not kind:
        raise pytest.UsageError(f"--llamastack-provider: {text!r} is not like inference=remote::tgi")
    return api, kind


def _require_version(text: str) -> None:
    from llamastack_conformance.checks import SUITE_VERSION, version_key

    try:
        newer = version_key(text) > version_key(SUITE_VERSION)
    except ValueError as error:
        raise pytest.UsageError(f"--llamastack-suite-version: {error}") from None
    if newer:
        raise pytest.UsageError(
            f"--llamastack-suite-version: {text} is not released yet; this suite is {SUITE_VERSION}"
        )


def _require_report(file: Path) -> None:
    from llamastack_conformance.report import ReportError, read

    try:
        read(file)
    except ReportError as error:
        raise pytest.UsageError(f"--llamastack-compare: {error}") from None
