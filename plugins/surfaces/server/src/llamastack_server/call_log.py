"""A plugin that adds a line to the access log for each call of a provider if LLAMASTACK_LOG_CALLS is `1`."""

from __future__ import annotations

import logging
import os

from llamastack.provider.hookspecs import hookimpl
from llamastack.provider.provider_call import CallEvent

CALLS_VARIABLE = "LLAMASTACK_LOG_CALLS"
_ACCESS = logging.getLogger("llamastack.access")


class CallLog:
    """Logs the result of each call."""

    @hookimpl
    def llamastack_call_finished(self, event: CallEvent) -> None:
        _ACCESS.info("%s", line_of(event))


def line_of(event: CallEvent) -> str:
    """Such as `chat_completion m at foo (remote::tgi) ok 812.0 ms, first piece 95.1 ms, tokens 21 in 130 out`."""
    line = f"{event.method} {event.identifier or event.api} at {event.provider_id} ({event.provider_type})"
    line += f" {event.error_code or event.status} {(event.duration_s or 0) * 1000:.1f} ms"
    if event.first_piece_s is not None:
        line += f", first piece {event.first_piece_s * 1000:.1f} ms"
    if event.input_tokens is not None:
        line += f", tokens {event.input_tokens} in {event.output_tokens or 0} out"
    return line


# No hook if the log is off, so that calls cost nothing more.
PLUGIN: object = CallLog() if os.environ.get(CALLS_VARIABLE) == "1" else object()
