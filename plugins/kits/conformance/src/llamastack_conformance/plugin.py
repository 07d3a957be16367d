"""The pytest plugin: options, runs without a test file, the choice of checks, and their outcomes.

It does nothing until it is used: it imports nothing of the core before an option or a suite needs it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from llamastack_conformance.options import Asked, add_options, read_options

if TYPE_CHECKING:
    from llamastack_conformance.check_runner import CheckRunner
    from llamastack_conformance.checks import Check
    from llamastack_conformance.configured import ConfiguredProvider
    from llamastack_conformance.report import ProviderResults
    from llamastack_conformance.store_under_test import ConfiguredStore
    from llamastack_conformance.waivers import Waiver

_PROPERTY = "llamastack_check"
_FAULTS = "llamastack_faults"
_STATE = pytest.StashKey["State"]()


@dataclass
class State:
    """The options and the results of one run."""

    asked: Asked
    suites: list[type] = field(default_factory=list)
    waivers: dict[type, list[Waiver]] = field(default_factory=dict)
    configured: dict[type, ConfiguredProvider | ConfiguredStore] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    results: dict[tuple[str, str], ProviderResults] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser.getgroup("llamastack", "conformance of llamastack providers"))


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.getoption("--llamastack-list"):
        return None
    from llamastack_conformance.catalogue import catalogue

    for check, apis in catalogue():
        print(f"{check.id:32} {check.tier:8} since {check.since:4} {','.join(apis):28} {check.wanted}")  # noqa: T201
    return 0


def pytest_configure(config: pytest.Config) -> None:
    asked = read_options(config.option)
    suites = [_suite(asked, api, kind) for api, kind in asked.providers]
    config.stash[_STATE] = State(asked, suites + [_suite_of_store(asked, name) for name in asked.stores])
    if (asked.providers or asked.stores) and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = []  # no test file was named, so none is searched for


def _suite(asked: Asked, api: str, kind: str) -> type:
    """A suite of `api` for one provider type, made from the options."""
    from llamastack_conformance.installed_suites import NoSuiteError, suite_of

    try:
        base = suite_of(api)
    except NoSuiteError as error:
        raise pytest.UsageError(f"--llamastack-provider: {error}") from None
    return _made_suite(base, kind, api, asked.config)


def _suite_of_store(asked: Asked, name: str) -> type:
    from llamastack_conformance.suites.store import StoreConformance

    return _made_suite(StoreConformance, name, StoreConformance.api, asked.config or {})


def _made_suite(base: Any, kind: str, api: str, config: object) -> type:
    title = "Test" + "".join(part.capitalize() for part in re.split(r"[\W_]+", kind))
    attributes = {base.type_attribute: kind, "config": config, "__module__": __name__}
    suite: type = type(f"{title}{api.capitalize()}", (base,), attributes)
    return suite


def _type_of(suite: Any) -> str:
    """The provider type, or the name of the store, that a suite is for."""
    kind = getattr(suite, suite.type_attribute, None)
    if not isinstance(kind, str):
        raise pytest.UsageError(f"{suite.__name__}: set {suite.type_attribute} to what is under test")
    return kind


class _SuiteModule(pytest.Module):
    """A module of tests without a file. It holds the suites that the options ask for."""

    def _getobj(self) -> ModuleType:
        made = ModuleType("llamastack_conformance_run")
        vars(made).update({suite.__name__: suite for suite in self.config.stash[_STATE].suites})
        return made


# ---- which checks apply ----------------------------------------------------------------------------------------------


def _check_of(item: pytest.Item) -> Check | None:
    if "llamastack_conformance.checks" not in sys.modules or not isinstance(item, pytest.Function):
        return None
    from llamastack_conformance.checks import check_of

    return check_of(item.function)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    state = config.stash[_STATE]
    if state.suites:
        module = _SuiteModule.from_parent(session, path=(state.asked.config or Path("llamastack-store")).resolve())
        items += session.genitems(module)
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    suites: dict[type, int] = {}
    for item in items:
        check = _check_of(item)
        suite = getattr(item, "cls", None)
        if check is None or suite is None:
            kept.append(item)
            continue
        suites.setdefault(suite, 0)
        applies = _applies(check, suite, config)
        suites[suite] += applies
        in_tier = check.tier.value in state.asked.tiers
        (kept if applies and in_tier else dropped).append(item)
        if config.pluginmanager.hasplugin("xdist"):
            item.add_marker(
                pytest.mark.xdist_group(suite.__name__)
            )  # its checks share a stack that one process has started
    for suite, count in suites.items():
        _require_whole(suite)
        if not count:
            raise pytest.UsageError(f"{suite.__name__}: no check applies to it")
    if dropped:
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)


def _applies(check: Check, suite: type, config: pytest.Config) -> bool:
    """Whether a check applies to this provider, by its installed spec."""
    from llamastack_conformance.checks import CheckFailure

    if check.capability is None:
        return True
    try:
        support = _configured(suite, config).spec.capabilities
    except CheckFailure:
        return False  # the check static.entry-point says why
    return support.holds(check.capability) is check.declared


def _configured(suite: Any, config: pytest.Config) -> Any:
    """The provider or store without a run config."""
    from llamastack_conformance.configured import SubjectError

    state = config.stash[_STATE]
    if suite not in state.configured:
        try:
            state.configured[suite] = suite.configured(_type_of(suite))
        except SubjectError as error:
            raise pytest.UsageError(f"{suite.__name__}: {error}") from None
    return state.configured[suite]


def _require_whole(suite: type) -> None:
    """Raise UsageError if a suite overrides a check with something that is no check."""
    from llamastack_conformance.checks import check_of

    for base in suite.__mro__[1:]:
        for name, value in vars(base).items():
            if check_of(value) is not None and check_of(getattr(suite, name, None)) is None:
                raise pytest.UsageError(
                    f"{suite.__name__}.{name} overrides a check but is no check; waive the check, or override the "
                    "methods that it uses (call, stream, prepare, ...)"
                )


# ---- the provider under test -----------------------------------------------------------------------------------------


@pytest.fixture(scope="class")
def llamastack_config(request: pytest.FixtureRequest) -> Any:
    """The run config, a file or a mapping: the suite's `config`. Override it if the config must be made."""
    config = request.cls.config
    if config is None:
        raise pytest.UsageError(f"{request.cls.__name__}: set `config`, or override the fixture `llamastack_config`")
    return config


@pytest.fixture(scope="class")
def llamastack_subject(request: pytest.FixtureRequest, llamastack_config: Any) -> Iterator[CheckRunner]:
    """The provider or store under test, for all checks of a suite."""
    from llamastack_conformance.configured import SubjectError, load_run_config

    suite, state = request.cls, request.config.stash[_STATE]
    try:
        document: Mapping[str, Any] = (
            llamastack_config if isinstance(llamastack_config, Mapping) else load_run_config(Path(llamastack_config))
        )
        subject: CheckRunner = suite.subject(
            _type_of(suite), document, on_run=lambda check: state.ran.add(f"{suite.__name__}:{check.id}")
        )
    except SubjectError as error:
        raise pytest.UsageError(f"{suite.__name__}: {error}") from None
    with subject.open():
        yield subject


# ---- what outcomes mean ----------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    check = _check_of(item)
    if check is None or (call.when != "call" and report.passed) or call.when == "teardown":
        return report
    from llamastack_conformance import outcomes

    state = item.config.stash[_STATE]
    suite: Any = item.cls  # type: ignore[attr-defined]
    kind, origin = _type_of(suite), _configured(suite, item.config).origin
    subject: Any = item.funcargs.get("llamastack_subject")  # type: ignore[attr-defined]
    result = outcomes.result_of(
        check,
        report,
        call.excinfo.value if call.excinfo else None,
        waiver=next((w for w in _waivers(item.config, suite) if w.covers(check.id, kind)), None),
        ran=f"{suite.__name__}:{check.id}" in state.ran,
        pinned=state.asked.pinned,
        redact=str if subject is None else subject.redact,
    )
    outcomes.settle(report, result, f"{check.id} of {suite.api}={kind}")
    report.user_properties.append((_PROPERTY, outcomes.as_property(suite.__name__, origin, result)))
    return report


def _waivers(config: pytest.Config, suite: Any) -> list[Waiver]:
    from llamastack_conformance.catalogue import check_ids
    from llamastack_conformance.waivers import WaiverError, read_waivers

    state = config.stash[_STATE]
    if suite not in state.waivers:
        files = [file for file in (suite.waivers, state.asked.waivers) if file is not None]
        try:
            state.waivers[suite] = [w for file in files for w in read_waivers(Path(file), check_ids())]
        except WaiverError as error:
            raise pytest.UsageError(str(error)) from None
    return state.waivers[suite]


# ---- the report ------------------------------------------------------------------------------------------------------


def _of_workers(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


class _Collector:
    """Collects the results of the whole run, so not in the workers of pytest-xdist."""

    def __init__(self, state: State) -> None:
        self._state = state

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == _PROPERTY and isinstance(value, dict):
                self._add(value)

    def _add(self, value: dict[str, Any]) -> None:
        from llamastack_conformance.outcomes import from_property

        provider, result = from_property(value)
        self._state.results.setdefault((provider.name, provider.suite), provider).results.append(result)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the errors in waivers from a worker of pytest-xdist: the controller collects no tests."""
        for fault in getattr(node, "workeroutput", {}).get(_FAULTS, ()):
            if fault not in self._state.faults:
                self._state.faults.append(fault)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if not _of_workers(session.config):
        session.config.pluginmanager.register(_Collector(session.config.stash[_STATE]), "llamastack-results")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Read every file of waivers before the first check runs. Each waiver must be for a check that will run."""
    state = session.config.stash[_STATE]
    checks: dict[type, set[str]] = {}
    for item in session.items:
        check = _check_of(item)
        if check is not None:
            checks.setdefault(item.cls, set()).add(check.id)  # type: ignore[attr-defined]
    for suite, ids in checks.items():
        for waiver in _waivers(session.config, suite):
            mine = waiver.provider in (None, _type_of(suite))
            if mine and waiver.id not in ids and not _selected(session.config) and _any_tier(waiver.id, state):
                state.faults.append(
                    f"the waiver of '{waiver.id}' is not needed: the check does not apply to {_type_of(suite)}"
                )


def _selected(config: pytest.Config) -> bool:
    """Whether the user chose some tests by hand."""
    return bool(config.option.keyword or config.option.markexpr or any("::" in arg for arg in config.args))


def _any_tier(check_id: str, state: State) -> bool:
    from llamastack_conformance.catalogue import catalogue

    return any(check.id == check_id and check.tier.value in state.asked.tiers for check, _ in catalogue())


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    state = config.stash[_STATE]
    if hasattr(config, "workeroutput"):
        config.workeroutput[_FAULTS] = state.faults
    if _of_workers(config) or config.option.collectonly:
        return
    found = list(state.results.values())
    tried = {provider.name for provider in found}
    asked = [f"{api}={kind}" for api, kind in state.asked.providers] + [f"store={name}" for name in state.asked.stores]
    missing = [name for name in asked if name not in tried]
    if missing and not session.shouldfail:
        state.faults.append(f"no check at all ran for {', '.join(missing)}")
    if state.asked.compare is not None:
        from llamastack_conformance.report import read, regressions

        state.compared.extend(regressions(read(state.asked.compare), found, state.asked.tiers))
    for file in state.asked.reports:
        from llamastack_conformance.checks import SUITE_VERSION
        from llamastack_conformance.report import ReportError, write

        try:
            write(file, found, SUITE_VERSION)
        except ReportError as error:
            state.faults.append(str(error))
    if state.faults or state.compared:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    state = config.stash[_STATE]
    asked = state.suites or state.asked.reports or state.asked.compare
    for provider in state.results.values():
        from llamastack_conformance.report import WARNED, terminal_table

        if asked or not provider.conforms or provider.counts[WARNED]:
            terminalreporter.section(f"conformance of {provider.name} ({provider.package} {provider.version})")
            for line in terminal_table(provider):
                terminalreporter.write_line(line)
    for title, lines in (("conformance: faults", state.faults), ("conformance: regressions", state.compared)):
        if lines:
            terminalreporter.section(title, red=True)
            for line in lines:
                terminalreporter.write_line(line)
