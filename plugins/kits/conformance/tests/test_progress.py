"""What a run of the suite shows while it runs: on a terminal, in a file, with `-q`, and with pytest-xdist."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
providers:
  safety:
  - {provider_id: s, provider_type: "remote::sample"}
x-conformance:
  unsafe: this is forbidden
"""
SLOW = """
import anyio
from llamastack_conformance import SafetyConformance, progress

progress.SILENCE_S = 0.5
call = SafetyConformance.call

async def slow_call(self, running, text=None):
    await anyio.sleep(1.7)
    return await call(self, running, text)

SafetyConformance.call = slow_call
"""
RUN = ("--llamastack-provider", "safety=remote::sample", "--llamastack-config", "provider.yaml")
SHORT = (*RUN, "--llamastack-tiers", "live", "-k", "life_starts")


@pytest.fixture(autouse=True)
def files(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing these plugins takes longer than a whole run here, and no run here uses them.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:schemathesis -p no:hypothesispytest -p no:cacheprovider")
    (pytester.path / "provider.yaml").write_text(CONFIG)


@pytest.mark.parametrize("how", [(), ("-q",), ("-v",), ("-q", "-s"), ("-q", "-n", "1")], ids=" ".join)
def test_a_long_check_is_named_and_each_tier_has_a_line(pytester: pytest.Pytester, how: tuple[str, ...]) -> None:
    (pytester.path / "conftest.py").write_text(SLOW)
    result = pytester.runpytest_subprocess(*SHORT, *how)
    assert result.ret == 0
    result.stdout.re_match_lines(
        [
            r"\d+ s: provider\.yaml::TestRemoteSampleSafety::test_life_starts runs for \d+ s",
            r"safety=remote::sample: live 1/1, \d+ s: 1 passed",
            r"=+ conformance of safety=remote::sample .*",
            r"conforms: 1 passed",
        ]
    )


def test_very_quiet_shows_none_of_it(pytester: pytest.Pytester) -> None:
    (pytester.path / "conftest.py").write_text(SLOW)
    result = pytester.runpytest_subprocess(*SHORT, "-qq")
    assert result.ret == 0
    assert "conform" not in result.stdout.str()
    assert "runs for" not in result.stdout.str()
    assert "live 1/1" not in result.stdout.str()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_a_terminal_shows_what_runs_in_the_line_of_the_dots(pytester: pytest.Pytester) -> None:
    (pytester.path / "conftest.py").write_text(SLOW)
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *SHORT, "-q"], stdout=theirs, stderr=theirs, cwd=pytester.path, env=environment
    ) as running:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
        assert running.wait(60) == 0
    os.close(ours)
    drawn = b"provider.yaml::TestRemoteSampleSafety::test_life_starts runs for 1 s\x1b8"
    assert drawn in shown
    assert b"\x1b[K" in shown[shown.index(drawn) :]  # it is removed again
    assert b"safety=remote::sample: live 1/1, " in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: nobody has the other end any more
        return b""


WITHOUT_POSIX = """
import asyncio, multiprocessing, os, signal, subprocess, sys, tempfile

for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
for name in ("fork", "getuid", "geteuid", "getpgid", "killpg", "mkfifo", "setsid"):
    delattr(os, name)
for name in ("SIGALRM", "SIGHUP", "SIGKILL", "SIGSTOP", "SIGUSR1"):
    delattr(signal, name)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing to take away")
def test_light_tiers_need_nothing_that_only_posix_has(pytester: pytest.Pytester) -> None:
    (pytester.path / "conftest.py").write_text(WITHOUT_POSIX)
    result = pytester.runpytest_subprocess(*RUN, "--llamastack-tiers", "static,live", "-p", "no:xdist")
    assert result.ret == 0
    result.stdout.re_match_lines([r"conforms: \d+ passed, .*"])


def test_every_module_of_the_suite_can_be_imported_without_posix(pytester: pytest.Pytester) -> None:
    code = WITHOUT_POSIX if sys.platform != "win32" else ""
    code += (
        "import importlib, pkgutil, llamastack_conformance\n"
        "found = pkgutil.walk_packages(llamastack_conformance.__path__, 'llamastack_conformance.')\n"
        "names = [importlib.import_module(module.name).__name__ for module in found]\n"
        "print('llamastack_conformance.suites.store_faults' in names)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(pytester.path), capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
