"""The content of a call as attributes of its span: without secrets, not longer than allowed, made in a thread."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import pydantic_core
import regex

from llamastack.provider.redaction import without_known_secrets
from llamastack_telemetry import conventions as names
from llamastack_telemetry.content_capture import RawContent
from llamastack_telemetry.content_messages import input_messages, output_messages, without_data_urls
from llamastack_telemetry.settings import TracingConfig
from llamastack_telemetry.spans import Attributes

_LARGEST_PARSED = 2 * 1024 * 1024
"""Bytes. Parsing more would hold up the event loop, also from a thread."""
_MARGIN = 4096
"""Characters. A secret at the end of a text that is cut before it is searched is at most as long."""
_PATTERN_TIMEOUT_S = 0.5
_PAUSE_S = 30
"""After a pattern that took too long: each text would take as long again."""
_STRUCK = "***"
_NOT_SEARCHED = "[left out: tracing.redact takes too long]"
_LOGGER = logging.getLogger("llamastack.telemetry")
_MOST_PARTS = 1000
_WORDS = ("type", "modality")
_LONGEST_WORD = 64


class ContentWriter:
    """Makes the attributes of content. settings: its limit, and what is struck out beside the known secrets."""

    def __init__(self, settings: TracingConfig) -> None:
        self._limit = settings.max_content_bytes
        self._redactor = _ContentRedactor(settings.redact)

    def attributes(self, content: RawContent) -> Attributes:
        """The messages of the request and of the reply. Content that cannot be read has a note in its place."""
        found: Attributes = {}
        asked = _read(content.size, lambda: input_messages(content.method, _request_of(content)))
        if content.method == "query_documents":
            query = "\n".join(str(part.get("content", "")) for message in asked for part in message["parts"])
            found[names.QUERY_TEXT] = content.context.run(_Room(self._limit, self._redactor).text, query)
            return found
        for name, messages in (
            (names.INPUT_MESSAGES, asked),
            (names.OUTPUT_MESSAGES, _read(content.size, lambda: output_messages(content.reply))),
        ):
            if messages:
                found[name] = content.context.run(self._written, messages)
        return found

    def _written(self, messages: list[dict[str, Any]]) -> str:
        room = _Room(self._limit, self._redactor)
        kept: list[dict[str, Any]] = []
        for message in messages:
            if room.is_empty or len(kept) == _MOST_PARTS:
                kept.append(_note(_cut("", len(messages) - len(kept), "messages")))
                break
            kept.append(room.message(message))
        written = json.dumps(kept, ensure_ascii=False)
        return written.encode("utf-8", "replace").decode()


def _request_of(content: RawContent) -> object:
    return content.asked if content.body is None else pydantic_core.from_json(content.body)


def _read(size: int, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    if size > _LARGEST_PARSED:
        return [_note(f"[left out: content of about {size} bytes]")]
    try:
        return read()
    except ValueError:
        return [_note("[left out: content that is no JSON]")]


def _note(text: str) -> dict[str, Any]:
    return {"role": "unknown", "parts": [{"type": "text", "content": text}]}


class _Room:
    """Room for the texts of one attribute, in bytes; it gets less with each text."""

    def __init__(self, limit: int, redacted: Callable[[str], str | None]) -> None:
        self._left = limit
        self._redacted = redacted

    @property
    def is_empty(self) -> bool:
        """Whether nothing more has room."""
        return self._left <= 0

    def message(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message with its texts redacted and cut."""
        parts = [
            {key: self._word(each) if key in _WORDS else self._value(each) for key, each in part.items()}
            for part in message["parts"][:_MOST_PARTS]
        ]
        return {**{key: self._word(each) for key, each in message.items()}, "parts": parts}

    def _word(self, value: object) -> str:
        """A word of the shape; a client may write anything in its place."""
        return self._redacted(str(value)[:_LONGEST_WORD]) or _STRUCK if isinstance(value, str) else ""

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self._value(each) for key, each in [*value.items()][:_MOST_PARTS]}
        if isinstance(value, list):
            return [self._value(each) for each in value[:_MOST_PARTS]]
        return value

    def text(self, text: str) -> str:
        """A text, redacted and cut. Secrets are struck out before it is cut, so that no part of one stays."""
        if self._left <= 0:
            return _cut("", len(text))
        searched = text[: self._left + _MARGIN]
        clean = self._redacted(searched)
        if clean is None:
            return _NOT_SEARCHED
        if len(searched) < len(text):
            clean = clean[: max(0, len(clean) - _MARGIN)]
        kept = clean.encode("utf-8", "replace")[: self._left].decode("utf-8", "ignore")
        self._left -= len(kept.encode("utf-8", "replace"))
        whole = len(kept) == len(clean) and len(searched) == len(text)
        return kept if whole else _cut(kept, max(1, len(text) - len(kept)))


class _ContentRedactor:
    """Strikes known secrets, and what the patterns find, out of texts. None: that takes too long, for now."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [regex.compile(pattern) for pattern in patterns]
        self._pauses_until = 0.0

    def __call__(self, text: str) -> str | None:
        if time.monotonic() < self._pauses_until:
            return None
        text = without_known_secrets(without_data_urls(text))
        for pattern in self._patterns:
            try:
                text = pattern.sub(_STRUCK, text, timeout=_PATTERN_TIMEOUT_S, concurrent=True)
            except TimeoutError:
                self._pauses_until = time.monotonic() + _PAUSE_S
                _LOGGER.warning(
                    "tracing.redact: %r took longer than %g s, so content is left out for %d s",
                    pattern.pattern,
                    _PATTERN_TIMEOUT_S,
                    _PAUSE_S,
                )
                return None
        return text


def _cut(kept: str, left_out: int, what: str = "characters") -> str:
    return f"{kept}... [cut: {left_out} {what}]"
