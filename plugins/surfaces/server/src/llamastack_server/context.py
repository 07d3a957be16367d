"""What belongs to one request, kept for the log lines written on its behalf."""

from __future__ import annotations

import random
import re
from contextvars import ContextVar

REQUEST_ID_HEADER = "X-Request-ID"
_ACCEPTED = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

request_id: ContextVar[str | None] = ContextVar("llamastack_request_id", default=None)


def request_id_from(header: str | None) -> str:
    """The client's own id where it is a harmless one, else a new one."""
    if header and _ACCEPTED.fullmatch(header):
        return header
    return f"{random.getrandbits(128):032x}"
