"""The pytest plugin: options, runs without a test file, the choice of checks, and their outcomes.

It does nothing until it is used: it imports nothing of the core before an option or a suite needs it.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from llamastack_conformance.options import Asked, add_options, read_options
from llamastack_conformance.progress import Progress
from llamastack_conformance.run_state import STATE, State, check_of_item, configured, title_of, type_of
from llamastack_conformance.selection import select

if TYPE_CHECKING:
    from llamastack_conformance.check_runner import CheckRunner
    from llamastack_conformance.report import ProviderResults
    from llamastack_conformance.waivers import Waiver

_FAULTS = "llamastack_faults"
_CASSETTES = "llamastack_cassettes"
_FEW = 3
"""With more suites in a run without options, those that conform get a line instead of a table."""


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
    config.stash[STATE] = State(asked, suites + [_suite_of_store(asked, name) for name in asked.stores])
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


class _SuiteModule(pytest.Module):
    """A module of tests without a file. It holds the suites that the options ask for."""

    def _getobj(self) -> ModuleType:
        made = ModuleType("llamastack_conformance_run")
        vars(made).update({suite.__name__: suite for suite in self.config.stash[STATE].suites})
        return made


# ---- which checks apply ----------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    state = config.stash[STATE]
    if state.suites:
        module = _SuiteModule.from_parent(session, path=(state.asked.config or Path("llamastack-store")).resolve())
        items += session.genitems(module)
    dropped = select(items, config)
    if dropped:
        config.hook.pytest_deselected(items=dropped)


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
    from llamastack_conformance.cassettes.plugin import with_cassette
    from llamastack_conformance.configured import SubjectError, load_run_config

    suite, state = request.cls, request.config.stash[STATE]
    try:
        document: Mapping[str, Any] = (
            llamastack_config if isinstance(llamastack_config, Mapping) else load_run_config(Path(llamastack_config))
        )
        subject: CheckRunner = suite.subject(
            type_of(suite), document, on_run=lambda check: state.ran.add(f"{suite.__name__}:{check.id}")
        )
        opened = with_cassette(suite.__name__, subject, state.asked, state.cassettes, state.faults)
    except SubjectError as error:
        raise pytest.UsageError(f"{suite.__name__}: {error}") from None
    with opened, subject.open():
        yield subject


# ---- what outcomes mean ----------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    check = check_of_item(item)
    if check is not None and call.when == "setup":
        item.user_properties.extend([("check", check.id), ("tier", check.tier.value), ("provider", title_of(item))])
    report = yield
    if check is None or (call.when != "call" and report.passed) or call.when == "teardown":
        return report
    from llamastack_conformance import outcomes

    state = item.config.stash[STATE]
    suite: Any = item.cls  # type: ignore[attr-defined]
    kind, origin = type_of(suite), configured(suite, item.config).origin
    subject: Any = item.funcargs.get("llamastack_subject")  # type: ignore[attr-defined]
    result = outcomes.result_of(
        check,
        report,
        call.excinfo.value if call.excinfo else None,
        waiver=next((w for w in _waivers(item.config, suite) if w.covers(check.id, kind)), None),
        causes=state.causes.setdefault(suite, outcomes.Causes()),
        ran=f"{suite.__name__}:{check.id}" in state.ran,
        pinned=state.asked.pinned,
        redact=str if subject is None else subject.redact,
    )
    outcomes.settle(report, result, f"{check.id} of {title_of(item)}")
    item.user_properties.append(("status", result.status))  # pytest writes these properties into its JUnit report
    total = state.totals[suite.__name__, check.tier.value]
    vars(report)["llamastack_check"] = {**outcomes.as_plain(suite.__name__, origin, result), "total": total}
    return report


def _waivers(config: pytest.Config, suite: Any) -> list[Waiver]:
    from llamastack_conformance.catalogue import check_ids
    from llamastack_conformance.waivers import WaiverError, read_waivers

    state = config.stash[STATE]
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

    def __init__(self, state: State, progress: Progress | None) -> None:
        self._state = state
        self._progress = progress

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        plain = getattr(report, "llamastack_check", None)
        if plain is None:
            return
        from llamastack_conformance.outcomes import from_plain

        provider, result = from_plain(plain)
        self._state.classes.add(report.nodeid.rpartition("::")[0])
        if self._progress is not None:
            self._progress.add(provider, result, plain["total"])
        self._state.results.setdefault((provider.name, provider.suite), provider).results.append(result)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker of pytest-xdist has noted: the controller collects and runs no tests."""
        for key, lines in ((_FAULTS, self._state.faults), (_CASSETTES, self._state.cassettes)):
            lines += [line for line in getattr(node, "workeroutput", {}).get(key, ()) if line not in lines]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    config, state = session.config, session.config.stash[STATE]
    if _of_workers(config):
        return
    reporter = config.pluginmanager.getplugin("terminalreporter")
    progress = None
    if reporter is not None and not _is_silent(config):
        progress = Progress(reporter, config.get_terminal_writer(), lines=_is_asked(state), is_check=state.may_be_check)
        config.pluginmanager.register(progress, "llamastack-progress")
    config.pluginmanager.register(_Collector(state, progress), "llamastack-results")


def _is_silent(config: pytest.Config) -> bool:
    return config.get_verbosity() < -1


def _is_asked(state: State) -> bool:
    """Whether the options name what is under test, or a report."""
    return bool(state.suites or state.asked.reports or state.asked.compare)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Read every file of waivers before the first check runs. Each waiver must be for a check that will run."""
    state = session.config.stash[STATE]
    checks: dict[type, set[str]] = {}
    for item in session.items:
        check = check_of_item(item)
        if check is not None:
            suite: type = item.cls  # type: ignore[attr-defined]
            checks.setdefault(suite, set()).add(check.id)
            state.totals[suite.__name__, check.tier.value] += 1
            state.classes.add(item.nodeid.rpartition("::")[0])
    for suite, ids in checks.items():
        for waiver in _waivers(session.config, suite):
            mine = waiver.provider in (None, type_of(suite))
            if mine and waiver.id not in ids and not _selected(session.config) and _any_tier(waiver.id, state):
                state.faults.append(
                    f"the waiver of '{waiver.id}' is not needed: the check does not apply to {type_of(suite)}"
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
    state = config.stash[STATE]
    if hasattr(config, "workeroutput"):
        config.workeroutput.update({_FAULTS: state.faults, _CASSETTES: state.cassettes})
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
    if state.faults or state.compared or any(_has_untried(provider) for provider in found):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _show(reporter: pytest.TerminalReporter, provider: ProviderResults, *, whole: bool) -> None:
    """The table of a suite. In a run with many suites, a line if it conforms."""
    from llamastack_conformance.report import WARNED, terminal_table

    if not whole and provider.conforms and not provider.counts[WARNED]:
        reporter.write_line(f"{provider.name} conforms: {provider.summary()}")
        return
    reporter.section(f"conformance of {provider.name} ({provider.package} {provider.version})")
    for line in terminal_table(provider):
        reporter.write_line(line)


def _has_untried(provider: ProviderResults) -> bool:
    from llamastack_conformance.report import NOT_TRIED

    return NOT_TRIED in provider.counts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    state = config.stash[STATE]
    if not _is_silent(config):
        for provider in state.results.values():
            _show(terminalreporter, provider, whole=_is_asked(state) or len(state.results) <= _FEW)
    for title, lines, red in (
        ("cassettes", state.cassettes, False),
        ("faults", state.faults, True),
        ("regressions", state.compared, True),
    ):
        if lines:
            terminalreporter.section(f"conformance: {title}", red=red)
            for line in lines:
                terminalreporter.write_line(line)
