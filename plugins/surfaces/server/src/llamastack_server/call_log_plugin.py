"""A plugin that adds a line to the access log for each call of a provider if LLAMASTACK_LOG_CALLS is `1`."""

from __future__ import annotations

import os

CALLS_VARIABLE = "LLAMASTACK_LOG_CALLS"


def _plugin() -> object:
    if os.environ.get(CALLS_VARIABLE) != "1":
        return object()  # no hook if the log is off, so that calls cost nothing more, and nothing is imported
    from llamastack_server.call_log import CallLog

    return CallLog()


PLUGIN = _plugin()
