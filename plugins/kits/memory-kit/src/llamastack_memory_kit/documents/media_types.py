"""Media types: the kind of a document, by its declared type or, if that is missing or general, by its first bytes.

Forms: RFC 9110, section 8.3.1; the suffixes +json and +xml: RFC 6838 and RFC 7303.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

_FORM = re.compile(r"\s*([a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127})\s*(?:;|$)", re.IGNORECASE)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\";\s]{1,100})\"?", re.IGNORECASE)
_GENERAL = {"application/octet-stream", "binary/octet-stream", "application/x-unknown", "unknown/unknown"}
_HTML = {"text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"}
_PDF = {"application/pdf", "application/x-pdf", "application/acrobat", "text/pdf"}
_TEXT = {
    *(f"application/{name}" for name in ("json", "xml", "yaml", "x-yaml", "toml", "csv", "sql", "graphql", "x-tex")),
    *(f"application/{name}" for name in ("javascript", "x-javascript", "ecmascript", "typescript", "x-sh", "x-python")),
    *(f"application/{name}" for name in ("x-ndjson", "ndjson", "jsonl", "jsonlines", "json5", "ld+json", "x-markdown")),
}
_NEVER_TEXT = ("image/", "audio/", "video/", "font/")
_PDF_MARK = b"%PDF-"
_HTML_MARK = re.compile(rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_PEEK_BYTES = 1024


class Kind(Enum):
    """How a document is read."""

    TEXT = auto()
    HTML = auto()
    PDF = auto()
    UNKNOWN = auto()
    """Read as text, if the bytes are text."""
    BINARY = auto()


class MediaType(NamedTuple):
    """name: in lower case, without parameters; "" if none is given. charset: the parameter of that name."""

    name: str = ""
    charset: str | None = None

    @property
    def is_general(self) -> bool:
        return not self.name or self.name in _GENERAL


def media_type_of(text: str | None) -> MediaType:
    """The media type in a header or a `mime_type`; an empty one if the text is no media type."""
    found = _FORM.match(text or "")
    if text is None or found is None:
        return MediaType()
    charset = _CHARSET.search(text, found.end(1))
    return MediaType(found[1].lower(), charset[1] if charset else None)


def kind_of(name: str, raw: bytes) -> Kind:
    """How a document of the media type `name` is read. raw: its bytes, used if the name is missing or general."""
    if name in _HTML:
        return Kind.HTML
    if name in _PDF:
        return Kind.PDF
    if name.startswith("text/") or name.endswith(("+json", "+xml", "+yaml")) or name in _TEXT:
        return Kind.TEXT
    if name.startswith(_NEVER_TEXT):
        return Kind.BINARY
    if MediaType(name).is_general:
        if raw.startswith(_PDF_MARK):
            return Kind.PDF
        if _HTML_MARK.match(raw[:_PEEK_BYTES]):
            return Kind.HTML
    return Kind.UNKNOWN
