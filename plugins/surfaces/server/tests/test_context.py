"""What the server reads of a request's headers into its context."""

from __future__ import annotations

import pytest

from llamastack.provider.context import traceparent_from

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (TRACE, TRACE),
        (f" {TRACE}\t", TRACE),
        (TRACE.upper(), None),
        (TRACE.replace("00-", "ff-", 1), None),
        (f"{TRACE}-more", None),
        (f"01{TRACE[2:-2]}ff-more", TRACE),
        (f"01{TRACE[2:-2]}02", f"{TRACE[:-2]}00"),
        (f"01{TRACE[2:]}more", None),
        (TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32), None),
        (TRACE.replace("b7ad6b7169203331", "0" * 16), None),
        (TRACE[:-1], None),
        ("", None),
    ],
)
def test_traceparent_is_read_by_the_rules_of_w3c(given: str, read: str | None) -> None:
    assert traceparent_from(given) == read
