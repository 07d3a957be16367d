"""Prints the kill table: which broken provider was found by which check, and by what."""

from __future__ import annotations

import pytest


class KillTable:
    """Collects the kills where the whole run is seen: not in the workers of pytest-xdist."""

    def __init__(self) -> None:
        self._kills: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._kills += [str(value) for name, value in report.user_properties if name == "kill"]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._kills:
            terminalreporter.section(f"kill table: {len(self._kills)} broken providers")
            for line in sorted(self._kills):
                terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(KillTable(), "kill-table")
