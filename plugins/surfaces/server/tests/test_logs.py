"""The server's log: one form for everybody's records, lines that cannot be forged, repetitions that are counted."""

from __future__ import annotations

import gc
import io
import json
import logging
import re
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from server_log import Log, server_log

from llamastack.provider.context import use_context
from llamastack.provider.control_characters import indented, one_line
from llamastack.provider.error_translation import as_stack_error
from llamastack.provider.redaction import Redactor
from llamastack_cli.terminal_text import for_terminal, json_for_terminal
from llamastack_server import logs
from llamastack_server.context import request_id_from
from llamastack_server.log_formats import TextFormat
from llamastack_server.log_ids import RequestIds
from llamastack_server.log_levels import LEVEL_VARIABLE
from llamastack_server.log_repeats import Repeats

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) \S+ ")
FORGED = "2026-01-01 00:00:00,000 INFO llamastack.access [x] GET /forged 200 1.0 ms"
STEERING = "\x1b[2J\x1b]0;title\x07"
LINE_ENDS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
TURNING = ["\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069", "\ufeff", "\u200b"]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """The server's logging, set up in this process; gives what is written, once it has been stopped."""
    monkeypatch.delenv(LEVEL_VARIABLE, raising=False)
    monkeypatch.delenv(logs.FORMAT_VARIABLE, raising=False)
    with server_log(packages=["llamastack_provider_x", "acme.plugin"]) as written:
        yield written


# ---- who logs --------------------------------------------------------------------------------------------------------


def test_loggers_of_plugins_write_as_our_own_do(log: Log) -> None:
    with use_context(request_id="id-1"):
        for name in ("llamastack.server", "llamastack_provider_x", "llamastack_provider_x.deep", "acme.plugin.store"):
            logging.getLogger(name).info("from %s", name)
    lines = log().splitlines()
    assert len(lines) == 4
    for line in lines:
        found = re.fullmatch(LINE.pattern + r"\[id-1\] from (\S+)", line)
        assert found is not None, line
        assert f" INFO {found[2]} [" in line


@pytest.mark.parametrize(("level", "shown"), [("DEBUG", 3), ("INFO", 2), ("WARNING", 1), ("ERROR", 0)])
def test_loggers_of_plugins_have_the_level_of_our_own(
    log: Log, monkeypatch: pytest.MonkeyPatch, level: str, shown: int
) -> None:
    for name in ("llamastack.stack", "llamastack_provider_x"):
        stderr = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stderr)
        logs.set_up_logging(level, packages=["llamastack_provider_x"])
        for at in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(at, "a line")
        assert logs._own is not None
        logs._own.stop()
        assert len(stderr.getvalue().splitlines()) == shown


def test_libraries_are_heard_at_warning_in_the_same_form(log: Log) -> None:
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("careful")
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger().error("the root itself")
    lines = log().splitlines()
    assert [line.split(" ", 3)[3] for line in lines] == [
        "some.library careful",
        "uvicorn.error Invalid HTTP request received.",
        "root the root itself",
    ]
    assert all(LINE.match(line) for line in lines)


def test_warnings_and_threads_that_end_are_in_the_log(log: Log) -> None:
    def fail() -> None:
        raise KeyError(FORGED)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning(UserWarning("old\nnews"), UserWarning, "x.py", 1)
    thread = threading.Thread(target=fail, name="its own")
    thread.start()
    thread.join()
    lines = log().splitlines()
    assert "WARNING py.warnings x.py:1: UserWarning: old\\nnews" in lines[0]
    assert "ERROR llamastack.server thread 'its own' has ended" in lines[1]
    assert all(line.startswith("    ") for line in lines[2:])


def test_exceptions_that_nobody_can_raise_are_in_the_log(log: Log) -> None:
    class Odd:
        def __del__(self) -> None:
            raise ValueError(FORGED)

    Odd()
    gc.collect()
    lines = log().splitlines()
    assert "ERROR llamastack.server exception ignored in " in lines[0]
    assert lines[1:]
    assert all(line.startswith("    ") for line in lines[1:])


def test_setting_up_twice_writes_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    logs.set_up_logging(worker="worker-1", packages=["llamastack_provider_x"])
    logging.getLogger("llamastack_provider_x").info("once")
    assert logs._own is not None
    logs._own.stop()
    assert re.fullmatch(r".{23} INFO llamastack_provider_x worker-1 once\n", stderr.getvalue())
    assert log() == ""


# ---- what cannot be forged -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [*LINE_ENDS, *TURNING, *"\x00\x07\x1b\x7f\x9b\U000e0041"],
    ids=lambda odd: odd.encode("unicode_escape").decode(),
)
def test_a_record_is_one_line_whatever_is_in_it(log: Log, odd: str) -> None:
    text = f"failed{odd}{FORGED}"
    logging.getLogger("llamastack.server").warning("%s: %s", "code", text)
    logging.getLogger("llamastack.server").warning(text)
    logging.getLogger(f"llamastack.{text}").warning("named so")
    logs.log_access("GET", f"/{text}", 404, 0.0)
    lines = log().split("\n")
    assert lines.pop() == ""
    assert len(lines) == 4
    assert all(LINE.match(line) and not line.startswith("2026-01-01") and line.isprintable() for line in lines)


@given(st.text())
def test_one_line_is_one_for_every_reader(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert one_line(shown) == shown
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", shown)


@given(st.text())
def test_what_is_indented_begins_no_line(text: str) -> None:
    assert all(line.startswith("    ") for line in indented(text).splitlines())


def test_plain_text_is_not_touched() -> None:
    text = "Grüße, 世界, नमस्ते, 👩‍💻, a\u00a0b, C:\\new"
    assert one_line(text) == for_terminal(text) == text
    assert one_line("\ud83d") == for_terminal("\ud83d") == "\\ud83d"
    assert for_terminal("a\n\tb\r\nc") == "a\n\tb\nc"
    assert for_terminal(STEERING) == "\\x1b[2J\\x1b]0;title\\x07"


@given(st.text(st.characters(codec="utf-8")))
def test_json_for_a_terminal_says_the_same(text: str) -> None:
    shown = json_for_terminal(json.dumps({"a": text}, ensure_ascii=False))
    assert json.loads(shown) == {"a": text}
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", shown)


def test_tracebacks_stay_readable_and_forge_nothing(log: Log) -> None:
    try:
        raise ValueError(f"bad\x1b\n{FORGED}\r{FORGED}\u2028{FORGED}")
    except ValueError as error:
        logging.getLogger("llamastack.server").error("unexpected", exc_info=error)
        reported = as_stack_error(error, "p", "t", lambda text: text)
    assert reported.code == "internal_error"
    lines = log().splitlines()
    assert sum(bool(LINE.match(line)) for line in lines) == 2
    assert "ERROR llamastack.provider provider 'p' (t) failed" in "\n".join(lines)
    assert lines.count("    Traceback (most recent call last):") == 2
    assert all(LINE.match(line) or line.startswith("    ") for line in lines)
    assert "\x1b" not in "".join(lines)


def test_secrets_of_configs_in_use_are_in_no_line(log: Log) -> None:
    class Config(BaseModel):
        api_key: SecretStr = SecretStr("sk-very-secret\n")

    in_use = Redactor(Config())
    logging.getLogger("some.library").error("sent sk-very-secret", exc_info=ValueError("sk-very-secret"))
    assert in_use("sk-very-secret") == "***"
    text = log()
    assert "sent ***" in text
    assert "very-secret" not in text


def test_very_long_messages_and_paths_are_cut(log: Log) -> None:
    logging.getLogger("llamastack.server").error("x" * 10**6, exc_info=ValueError("y" * 10**6))
    logs.log_access("GET", "/" + "z" * 60_000, 404, 0.0)
    text = log()
    assert len(text) < 50_000
    assert "characters left out" in text
    assert " 404 0.0 ms" in text


@pytest.mark.parametrize("given", ["a b", "a\n", "\na", "a\x1b", "", "x" * 129, "é"])
def test_an_odd_request_id_is_replaced(given: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", request_id_from(given))


# ---- repetitions -----------------------------------------------------------------------------------------------------


def record_of(message: str, *arguments: object, line: int = 1, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("llamastack.server", level, "a.py", line, message, arguments, None)


def admitted(repeats: Repeats, records: list[logging.LogRecord], now: float = 0.0) -> int:
    return sum(repeats.admits(record, record.getMessage(), RequestIds(), now) for record in records)


@pytest.mark.parametrize(
    "text",
    [
        lambda n: f"attempt {n} of 1000",
        lambda n: f"request {uuid.UUID(int=n * 7919**9)} failed",
        lambda n: f"connection 10.0.{n % 256}.{n // 256}:{n} refused after {n / 7:.3f} s",
        lambda n: f"model 'm{n}' failed",
    ],
)
def test_lines_that_differ_in_numbers_are_of_one_kind(text: Callable[[int], str]) -> None:
    repeats = Repeats(5)
    assert admitted(repeats, [record_of("%s", text(n), line=n) for n in range(1000)]) == 10
    (held,) = repeats.over()
    assert held.number == 990
    assert held.text == text(999)


def test_the_same_line_is_written_a_few_times() -> None:
    repeats = Repeats(5)
    assert admitted(repeats, [record_of("the same", line=n) for n in range(1000)]) == 5
    assert [held.number for held in repeats.over()] == [995]


def test_other_lines_of_the_same_place_are_written_up_to_a_limit() -> None:
    repeats = Repeats(5, most_of_a_place=50)
    words = ["".join(chr(97 + int(digit)) for digit in str(n)) for n in range(1000)]
    assert admitted(repeats, [record_of("failed: %s", word) for word in words]) == 50
    assert sum(held.number for held in repeats.over()) == 950
    assert admitted(repeats, [record_of("another", line=2)]) == 1


def test_each_line_is_written_or_counted_once() -> None:
    repeats = Repeats(3, most_of_a_place=7, most_kept=20)
    records = [record_of("%s", "abcdefghijkl"[n % 12] * (n % 5 + 1), line=n % 4) for n in range(5000)]
    reported = sum(held.number for held in repeats.over())
    written = 0
    for place, record in enumerate(records):
        written += repeats.admits(record, record.getMessage(), RequestIds(), place / 100)
        reported += sum(held.number for held in repeats.over(place / 100))
    reported += sum(held.number for held in repeats.over())
    assert written + reported == len(records)
    assert list(repeats.over()) == []


def test_after_its_time_a_kind_begins_anew() -> None:
    repeats = Repeats(2, window_s=10)
    same = [record_of("the same")] * 3
    assert admitted(repeats, same, 0) == 2
    assert repeats.next_over() == 10
    assert list(repeats.over(9.9)) == []
    assert [held.number for held in repeats.over(10)] == [1]
    assert repeats.next_over() is None
    assert admitted(repeats, same, 10) == 2


def test_few_are_remembered() -> None:
    repeats = Repeats(5, most_kept=100)
    for n in range(10_000):
        repeats.admits(record_of("x"), "".join(chr(97 + int(digit)) for digit in str(n)), RequestIds(), n / 1000)
    assert len(repeats._kinds) <= 102


def test_the_log_tells_what_it_held_back(log: Log) -> None:
    for n in range(100):
        with use_context(request_id=f"request-{n}"):
            logging.getLogger("llamastack.server").warning("%s: %s", "provider_unavailable", f"refused {n}")
        logging.getLogger("llamastack.server").debug("not asked for")
    for _ in range(100):
        logs.log_access("GET", "/health", 200, 0.001)
    lines = log().splitlines()
    assert sum("refused" in line for line in lines) == 11
    (reported,) = [line for line in lines if "repeated" in line]
    assert re.fullmatch(
        LINE.pattern
        + r"\[request-99\] repeated 90 times within 10 s, the last time as: provider_unavailable: refused 99",
        reported,
    )
    assert sum("GET /health" in line for line in lines) == 100


def test_what_was_held_back_is_told_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler = logs._BatchingHandler(stream, TextFormat(None), Repeats(1, window_s=0.2))
    try:
        for _ in range(3):
            handler.handle(record_of("the same"))
        deadline = threading.Event()
        for _ in range(500):
            if "repeated 2 times" in stream.getvalue():
                break
            deadline.wait(0.01)
        assert "repeated 2 times" in stream.getvalue()
    finally:
        handler.stop()


def test_debug_and_a_limit_of_0_write_all(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for level, setting, shown in (("DEBUG", "5", 20), ("INFO", "0", 20), ("INFO", "3", 4)):
        stderr = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv(logs.REPEATS_VARIABLE, setting)
        logs.set_up_logging(level)
        for _ in range(20):
            logging.getLogger("llamastack.x").log(logging.getLevelName(level), "the same")
        assert logs._own is not None
        logs._own.stop()
        assert len(stderr.getvalue().splitlines()) == shown
    monkeypatch.setenv(logs.REPEATS_VARIABLE, "many")
    with pytest.raises(ValueError, match="LLAMASTACK_LOG_REPEATS: 'many' is not a whole number of lines"):
        logs.set_up_logging()


def test_lines_that_nobody_reads_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str, /) -> int:
            going_on.wait(10)
            return super().write(text)

    monkeypatch.setattr(logs, "_MOST_WAITING", 10)
    stream = Slow()
    handler = logs._BatchingHandler(stream, TextFormat(None), Repeats(0))
    try:
        for n in range(1000):
            handler.add(f"line {n}")
        going_on.set()
    finally:
        handler.stop()
    written = stream.getvalue().splitlines()
    (reported,) = [re.search(r"(\d+) lines of the log were dropped", line) for line in written if "dropped" in line]
    assert reported is not None
    assert int(reported[1]) + len(written) - 1 == 1000


def test_what_is_logged_after_the_end_is_written(log: Log) -> None:
    assert log() == ""
    logging.getLogger("llamastack.stack").warning("a last word")
    assert "a last word" in log()
