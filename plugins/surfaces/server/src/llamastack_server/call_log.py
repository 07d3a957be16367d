"""A line in the access log for each call of a provider."""

from __future__ import annotations

import logging
from contextlib import nullcontext

from llamastack.provider.context import use_context
from llamastack.provider.hookspecs import hookimpl
from llamastack.provider.provider_call import CallEvent
from llamastack_server.log_formats import ACCESS, FIELDS, LogFields, milliseconds

_ACCESS = logging.getLogger(ACCESS)


class CallLog:
    """Logs the result of each call."""

    @hookimpl
    def llamastack_call_finished(self, event: CallEvent) -> None:
        if _ACCESS.isEnabledFor(logging.INFO):
            # The call's own span where it has one; the context has the one around it again.
            with nullcontext() if event.traceparent is None else use_context(traceparent=event.traceparent):
                _ACCESS.info("%s", line_of(event), extra={FIELDS: fields_of(event)})


def line_of(event: CallEvent) -> str:
    """Such as `chat_completion m at foo (remote::tgi) ok 812.0 ms, first piece 95.1 ms, tokens 21 in 130 out`."""
    line = f"{event.method} {event.identifier or event.api} at {event.provider_id} ({event.provider_type})"
    line += f" {event.error_code or event.status} {(event.duration_s or 0) * 1000:.1f} ms"
    if event.first_piece_s is not None:
        line += f", first piece {event.first_piece_s * 1000:.1f} ms"
    if event.input_tokens is not None:
        line += f", tokens {event.input_tokens} in {event.output_tokens or 0} out"
    return line


def fields_of(event: CallEvent) -> LogFields:
    """The parts of the line, for a format that has fields. Empty and unknown ones are None."""
    return {
        "api": event.api,
        "method": event.method,
        "identifier": event.identifier or None,
        "provider_id": event.provider_id,
        "provider_type": event.provider_type,
        "status": event.status,
        "error_code": event.error_code,
        "duration_ms": milliseconds(event.duration_s or 0),
        "first_piece_ms": None if event.first_piece_s is None else milliseconds(event.first_piece_s),
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
    }
