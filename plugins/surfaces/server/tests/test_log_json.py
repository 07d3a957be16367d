"""The log in JSON: each line is an object, with the parts of the message as fields."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from server_log import Log, server_log

from llamastack.provider.context import RequestContext, use_context
from llamastack.provider.control_characters import one_line
from llamastack.provider.provider_call import CallEvent
from llamastack.provider.redaction import Redactor
from llamastack_server import log_formats, logs
from llamastack_server.call_log import CallLog
from llamastack_server.log_formats import FIELDS
from llamastack_server.log_json import JsonFormat
from llamastack_server.log_repeats import Repeats

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
EVENT = CallEvent("1", None, "inference", "chat_completion", "m", "foo", "remote::tgi", "r")
FORGED = '\r\n{"level":"INFO"}\n'
ANY_TEXT = st.text(st.characters())  # with lone surrogates
_SERVER = logging.getLogger("llamastack.server")


@pytest.fixture(autouse=True)
def in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "json")


@pytest.fixture
def log() -> Iterator[Log]:
    with server_log() as written:
        yield written


def objects(text: str) -> list[dict[str, Any]]:
    assert text.isascii()
    lines = text.split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def record(message: str, name: str = "llamastack.server", **more: object) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, "a.py", 1, message, (), None)
    vars(made).update(more)
    return made


def test_a_record_has_its_fields(log: Log) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    _SERVER.warning("slow: %s", "Grüße")
    with use_context(request_id="r-1"):
        _SERVER.error("fails")
    with use_context(request_id="r-1", traceparent=TRACEPARENT):
        logging.getLogger("some.library").error("fails")
    found = objects(log())
    for each in found:
        time = each.pop("time")
        assert len(time) == len("2026-11-23T20:56:58.976Z")
        assert time.endswith("Z")
        assert before <= datetime.fromisoformat(time) <= datetime.now(UTC)
    assert found == [
        {"level": "WARNING", "logger": "llamastack.server", "message": "slow: Grüße"},
        {"level": "ERROR", "logger": "llamastack.server", "message": "fails", "request_id": "r-1"},
        {
            "level": "ERROR",
            "logger": "some.library",
            "message": "fails",
            "request_id": "r-1",
            "trace_id": TRACE,
            "span_id": SPAN,
        },
    ]


@pytest.mark.parametrize("traceparent", ["", "00-x-y-01", f"{TRACEPARENT}\n", TRACEPARENT.upper()])
def test_what_is_no_traceparent_gives_no_ids(traceparent: str) -> None:
    with server_log() as log:  # after pytest has added its handler
        with use_context(RequestContext(traceparent=traceparent)):
            _SERVER.warning("a line")
            logs.log_access("GET", "/", 200, 0.0)
        assert not [each for each in objects(log()) if each.keys() & {"trace_id", "span_id"}]


def test_lines_of_a_worker_have_its_name() -> None:
    with server_log(worker="worker-2") as log:
        _SERVER.warning("a line")
        logs.log_access("GET", "/", 200, 0.0)
    assert [each["worker"] for each in objects(log())] == ["worker-2"] * 2


@pytest.mark.parametrize(
    "path", ["/models/get", '/"%0a\\', "/\x1b\n\ud83d", "/" + "é" * 5000], ids=["plain", "quoted", "odd", "long"]
)
@pytest.mark.parametrize("context", [{}, {"request_id": "r"}, {"request_id": "r", "traceparent": TRACEPARENT}])
def test_the_quick_way_of_the_access_log_writes_as_the_other_does(path: str, context: Any) -> None:
    written = []
    for handlers in ([], [logging.NullHandler()]):  # with another handler, a record is made
        with server_log(worker="worker-1") as log, use_context(**context):
            logging.getLogger("llamastack.access").handlers[:] = handlers
            try:
                logs.log_access("GET", path, 404, 0.01234)
            finally:
                logging.getLogger("llamastack.access").handlers.clear()
            (found,) = objects(log())
        assert found.pop("time")
        written.append(found)
    assert written[0] == written[1]
    assert list(written[0]) == list(written[1])
    assert written[0]["message"] == f"GET {written[0]['path']} 404 12.3 ms"
    parts = {name: written[0][name] for name in ("http_method", "http_status", "duration_ms")}
    assert parts == {"http_method": "GET", "http_status": 404, "duration_ms": 12.3}
    assert len(written[0]["path"]) <= 1027


def test_a_call_of_a_provider_has_its_values_as_fields(log: Log) -> None:
    event = EVENT._replace(status="ok", duration_s=0.812, first_piece_s=0.0951, input_tokens=21, output_tokens=130)
    bare = event._replace(identifier="", status="error", error_code="rate_limited", first_piece_s=None)
    CallLog().llamastack_call_finished(event)
    CallLog().llamastack_call_finished(bare._replace(input_tokens=None, output_tokens=None))
    whole, less = objects(log())
    fields = {
        "api": "inference",
        "method": "chat_completion",
        "identifier": "m",
        "provider_id": "foo",
        "provider_type": "remote::tgi",
        "status": "ok",
        "duration_ms": 812.0,
        "first_piece_ms": 95.1,
        "input_tokens": 21,
        "output_tokens": 130,
    }
    assert whole["message"].startswith("chat_completion m at foo (remote::tgi) ok 812.0 ms, first piece 95.1 ms")
    assert {name: whole[name] for name in whole if name not in ("time", "level", "logger", "message")} == fields
    for name in ("identifier", "first_piece_ms", "input_tokens", "output_tokens"):
        del fields[name]
    fields |= {"status": "error", "error_code": "rate_limited"}
    assert {name: less[name] for name in less if name not in ("time", "level", "logger", "message")} == fields


def test_a_call_with_a_span_of_its_own_has_the_id_of_that_span(log: Log) -> None:
    own = f"00-{TRACE}-{'1' * 16}-01"
    for span in (own, None):
        with use_context(request_id="r", traceparent=TRACEPARENT):
            CallLog().llamastack_call_finished(EVENT._replace(status="ok", traceparent=span))
    found = [(each["request_id"], each["trace_id"], each["span_id"]) for each in objects(log())]
    assert found == [("r", TRACE, "1" * 16), ("r", TRACE, SPAN)]


def test_tracebacks_and_stacks_keep_their_lines() -> None:
    with server_log() as log:  # after pytest has added its handler
        try:
            raise ValueError("bad\x1b\nnext \u2028\ud83d")
        except ValueError:
            _SERVER.exception("unexpected", stack_info=True)
        (found,) = objects(log())
        assert found["message"] == "unexpected"
        assert found["exception"].startswith("Traceback (most recent call last):\n  File ")
        assert found["exception"].endswith("\nValueError: bad\\x1b\nnext \\u2028\\ud83d")
        assert found["stack_info"].startswith("Stack (most recent call last):\n  File ")


def test_secrets_are_in_no_field(log: Log) -> None:
    class Config(BaseModel):
        api_key: SecretStr = SecretStr("sk-very-secret")

    in_use = Redactor(Config())
    assert in_use("sk-very-secret") == "***"
    secret = dict.fromkeys(("identifier", "provider_id", "provider_type", "error_code"), "sk-very-secret")
    event = EVENT._replace(status="error", duration_s=0.1, **secret)
    CallLog().llamastack_call_finished(event)
    _SERVER.error("sent sk-very-secret", exc_info=ValueError("sk-very-secret"), stack_info=True)
    text = log()
    assert "very-secret" not in text
    call, error = objects(text)
    assert {name: call[name] for name in secret} == dict.fromkeys(secret, "***")
    assert error["message"] == "sent ***"
    assert error["exception"] == "ValueError: ***"


def test_repetitions_are_summed_up_in_an_object(log: Log) -> None:
    for number in range(20):
        with use_context(request_id=f"r{number}", traceparent=TRACEPARENT):
            _SERVER.warning("refused")
    *written, summary = objects(log())
    assert len(written) == 5
    del summary["time"]
    assert summary == {
        "level": "WARNING",
        "logger": "llamastack.server",
        "message": "repeated 15 times within 10 s, the last time as: refused",
        "request_id": "r19",
        "trace_id": TRACE,
        "span_id": SPAN,
        "repeated": 15,
        "within_s": 10.0,
    }


def test_dropped_lines_are_reported_in_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MOST_WAITING", 0)
    stream = io.StringIO()
    handler = logs._BatchingHandler(stream, JsonFormat(None), Repeats(0))
    handler.handle(record("nobody reads this"))
    handler.stop()
    (found,) = objects(stream.getvalue())
    assert found["dropped"] == 1
    assert found["message"] == "1 lines of the log were dropped: they came faster than they were read"


def test_a_record_that_cannot_be_formatted_is_an_object() -> None:
    with server_log() as log:  # after pytest has added its handler
        _SERVER.warning("%d apples", "no number")
        (found,) = objects(log())
        assert found["level"] == "ERROR"
        assert found["message"].startswith("a record of the logger 'llamastack.server' cannot be written")
        assert "TypeError" in found["exception"]


def test_a_stream_that_takes_only_ascii_gets_whole_lines() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", "backslashreplace")
    with server_log(stderr=stream) as log:
        _SERVER.warning("Grüße 世界 \ud83d")
        log()
    (found,) = objects(raw.getvalue().decode())
    assert found["message"] == "Grüße 世界 \\ud83d"


@example("\ud83d\n\x1b\u2028\x00\x85")
@given(ANY_TEXT)
def test_any_message_is_one_line_that_reads_back(text: str) -> None:
    line = JsonFormat(None).format(record(text))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == one_line(text.rstrip())


@example("\ud83d", "\ud83d", "\ud83d\n\ud83d", float("nan"))
@example(FORGED, FORGED, FORGED, float("-inf"))
@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, st.one_of(ANY_TEXT, st.integers(), st.floats(), st.none()))
def test_any_text_in_any_place_breaks_no_line(text: str, name: str, other: str, value: object) -> None:
    odd = record("%", name, levelname=text, exc_text=other, stack_info=text, **{FIELDS: {"value": value, "text": text}})
    with use_context(RequestContext(request_id=other, traceparent=text)):
        line = JsonFormat(text).format(odd)
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    found["message"].encode()
    json.dumps(found, ensure_ascii=False).encode()  # no lone surrogate in any field
    assert found["logger"] == one_line(name)


@given(ANY_TEXT, ANY_TEXT)
def test_any_request_is_one_line(method: str, path: str) -> None:
    written: list[str] = []

    with pytest.MonkeyPatch.context() as patch, server_log() as log:
        assert logs._own is not None
        patch.setattr(logs._own, "add", written.append)
        logs.log_access(method, path, 200, 0.0)
        log()
    (line,) = written
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"].startswith(one_line(method))


def test_very_long_texts_are_cut(log: Log) -> None:
    _SERVER.error("x" * 10**6, exc_info=ValueError("y" * 10**6))
    (found,) = objects(log())
    assert len(found["message"]) < log_formats.LONGEST_MESSAGE + 100
    assert "characters left out" in found["exception"]


@pytest.mark.parametrize("given", ["xml", " json", "text,json"])
def test_another_format_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(logs.FORMAT_VARIABLE, given)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # a test before may have set up the log
    with pytest.raises(ValueError, match=f"^LLAMASTACK_LOG_FORMAT: '{given}' is not one of text, json$"):
        logs.set_up_logging()
    assert sys.unraisablehook is not logs._log_ignored


@pytest.mark.parametrize("given", ["", "text", "TEXT"])
def test_the_default_is_text(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(logs.FORMAT_VARIABLE, given)
    with server_log() as log:
        _SERVER.warning("to read")
    assert log().endswith(" WARNING llamastack.server to read\n")
