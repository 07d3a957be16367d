"""Where a page ended, as clients get it: an opaque text."""

from __future__ import annotations

import base64
import binascii

from llamastack.provider import InvalidRequestError
from llamastack.provider.control_characters import one_line
from llamastack_provider_meta_reference.telemetry.trace_store import Position, SpanPosition

_LONGEST = 1024
_SHOWN = 60


def write_cursor(position: Position | SpanPosition) -> str:
    """A text that `read_trace_cursor` or `read_span_cursor` understands."""
    plain = f"{position[0]}:{position[1]}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def read_trace_cursor(after: str | None) -> Position | None:
    """Raises InvalidRequestError for what is no cursor of a list of traces."""
    if after is None:
        return None
    start_ns, number = _read(after)
    try:
        return Position(start_ns, _number(number))
    except ValueError:
        raise _refusal(after) from None


def read_span_cursor(after: str | None) -> SpanPosition | None:
    """Raises InvalidRequestError for what is no cursor of a list of spans."""
    return None if after is None else SpanPosition(*_read(after))


def _read(after: str) -> tuple[int, str]:
    if len(after) > _LONGEST:
        raise _refusal(after)
    try:
        plain = base64.b64decode(after + "=" * (-len(after) % 4), altchars=b"-_", validate=True).decode()
        start_ns, colon, rest = plain.partition(":")
        if not colon:
            raise _refusal(after)
        return _number(start_ns), rest
    except (ValueError, binascii.Error):
        raise _refusal(after) from None


def _number(text: str) -> int:
    number = int(text)
    if text != str(number) or not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def _refusal(after: str) -> InvalidRequestError:
    shown = one_line(after[:_SHOWN])
    return InvalidRequestError(f"after: '{shown}' is no 'last_id' of a page of this list", param="after")
