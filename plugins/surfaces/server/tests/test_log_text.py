"""The log as text: the ids of a request, and records that cannot be formatted."""

from __future__ import annotations

import logging

import pytest
from server_log import server_log

from llamastack.provider.context import RequestContext, use_context
from llamastack_server import logs

FORGED = "2026-01-01 00:00:00,000 INFO llamastack.access [x] GET /forged 200 1.0 ms"


@pytest.fixture(autouse=True)
def in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(logs.FORMAT_VARIABLE, raising=False)


def test_a_record_that_cannot_be_formatted_is_reported_without_its_arguments() -> None:
    with server_log() as log:  # after pytest has added its handler
        logging.getLogger("some.library").warning("%d apples", f"sk-of-nobody\n{FORGED}")
        logging.getLogger("some.library").warning("goes on")
        lines = log().splitlines()
        assert (
            "ERROR llamastack.server a record of the logger 'some.library' cannot be written; it comes from" in lines[0]
        )
        assert all(line.startswith("    ") for line in lines[1:-1])
        assert lines[-2].startswith("    TypeError: ")
        assert lines[-1].endswith("some.library goes on")
        assert "sk-of-nobody" not in "".join(lines)


def test_lines_of_a_request_with_a_trace_have_its_id() -> None:
    with server_log() as log:  # after pytest has added its handler
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        parent = f"00-{trace}-00f067aa0ba902b7-01"
        for changes in ({"request_id": "r"}, {"request_id": trace}, {"request_id": None}):
            with use_context(traceparent=parent, **changes):
                logging.getLogger("llamastack.server").warning("slow")
                logs.log_access("GET", "/health", 200, 0.001)
        with use_context(RequestContext(request_id="r", traceparent=f"00-{trace}-{FORGED}")):
            logging.getLogger("llamastack.server").warning("no trace")
        assert [line.split(" ", 4)[4] for line in log().splitlines()] == [
            f"[r trace={trace}] slow",
            f"[r trace={trace}] GET /health 200 1.0 ms",
            f"[{trace}] slow",
            f"[{trace}] GET /health 200 1.0 ms",
            f"[trace={trace}] slow",
            f"[trace={trace}] GET /health 200 1.0 ms",
            "[r] no trace",
        ]
