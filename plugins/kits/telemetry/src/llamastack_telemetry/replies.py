"""What a reply says of itself: its id, its model, and why the model stopped.

Formats: https://platform.openai.com/docs/api-reference/chat/object, and the native API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from llamastack_telemetry import conventions as names
from llamastack_telemetry.spans import Attributes

_LONGEST_WHOLE = 4096
_HEAD, _TAIL = 512, 2048
_LONGEST_TEXT = 256
_MOST_REASONS = 16
# The quotes are not escaped, so these are names of fields, not text of the model.
_REASON = re.compile(rb'"finish_reason"\s*:\s*"([^"\\]{1,64})"')
_ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,256})"')
_ID_OF_PIECE = re.compile(rb'data:\s*\{\s*"id"\s*:\s*"([^"\\]{1,256})"')
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"')
_CHOICES = b'"choices"'


def attributes_of(reply: object) -> Attributes:
    """What the reply of a call says of itself, as attributes. reply: of a `CallEvent`."""
    if isinstance(reply, bytes):
        return _of_bytes(reply if len(reply) <= _LONGEST_WHOLE else b"\n".join((reply[:_HEAD], reply[-_TAIL:])))
    if isinstance(reply, tuple):
        if reply and isinstance(reply[-1], bytes):
            # The piece with the reason is followed by the usage and the end marker.
            return _of_bytes(b"\n".join([piece[-_TAIL:] for piece in reply[-3:] if isinstance(piece, bytes)]))
        found = (attributes for piece in reversed(reply) if (attributes := _of_object(piece)))
        return next(found, {})
    return _of_object(reply)


def _of_object(reply: object) -> Attributes:
    if isinstance(reply, Mapping):
        choices = reply.get("choices")
        items = choices if isinstance(choices, list) else []
        reasons = [each.get("finish_reason") for each in items if isinstance(each, Mapping)]
        return _attributes(reply.get("id"), reply.get("model"), reasons) if any(reasons) else {}
    said = getattr(reply, "completion_message", None) or getattr(reply, "event", None) or reply
    reason = getattr(said, "stop_reason", None)
    return _attributes(None, None, [getattr(reason, "value", reason)])


def _of_bytes(text: bytes) -> Attributes:
    # After the choices, an id may be that of a call of a tool.
    before = text.find(_CHOICES)
    found = _ID_OF_PIECE.search(text) if b"data:" in text else None
    if found is None and before >= 0:
        found = _ID.search(text, 0, before)
    model = _MODEL.search(text)
    return _attributes(_text(found), _text(model), [reason.decode("latin-1") for reason in _REASON.findall(text)])


def _text(found: re.Match[bytes] | None) -> str | None:
    return None if found is None else found[1].decode("utf-8", "replace")


def _attributes(own_id: object, model: object, reasons: Iterable[object]) -> Attributes:
    found: Attributes = {}
    if isinstance(own_id, str) and own_id:
        found[names.RESPONSE_ID] = own_id[:_LONGEST_TEXT]
    if isinstance(model, str) and model:
        found[names.RESPONSE_MODEL] = model[:_LONGEST_TEXT]
    texts = [str(reason)[:_LONGEST_TEXT] for reason in reasons if isinstance(reason, str) and reason]
    if texts:
        found[names.RESPONSE_FINISH_REASONS] = texts[:_MOST_REASONS]
    return found
