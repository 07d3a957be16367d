"""Media types: what a document is, by what its sender says and, where that says nothing, by its first bytes.

Forms: RFC 9110, section 8.3.1; the suffixes +json and +xml: RFC 6838 and RFC 7303.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

_FORM = re.compile(r"\s*([a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127})\s*(?:;|$)", re.IGNORECASE)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\";\s]{1,100})\"?", re.IGNORECASE)
_SAYS_NOTHING = {"application/octet-stream", "binary/octet-stream", "application/x-unknown", "unknown/unknown"}
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
    """As text, where it is one."""
    BINARY = auto()


class MediaType(NamedTuple):
    """name: in small letters, without parameters; "" where nothing is said. charset: its parameter of that name."""

    name: str = ""
    charset: str | None = None

    @property
    def says_nothing(self) -> bool:
        return not self.name or self.name in _SAYS_NOTHING


def media_type_of(text: str | None) -> MediaType:
    """The media type in a header or a `mime_type`; an empty one where the text is none."""
    found = _FORM.match(text or "")
    if text is None or found is None:
        return MediaType()
    charset = _CHARSET.search(text, found.end(1))
    return MediaType(found[1].lower(), charset[1] if charset else None)


def kind_of(name: str, raw: bytes) -> Kind:
    """How a document of the media type `name` is read. raw: its bytes, looked at where the name says nothing."""
    if name in _HTML:
        return Kind.HTML
    if name in _PDF:
        return Kind.PDF
    if name.startswith("text/") or name.endswith(("+json", "+xml", "+yaml")) or name in _TEXT:
        return Kind.TEXT
    if name.startswith(_NEVER_TEXT):
        return Kind.BINARY
    if MediaType(name).says_nothing:
        if raw.startswith(_PDF_MARK):
            return Kind.PDF
        if _HTML_MARK.match(raw[:_PEEK_BYTES]):
            return Kind.HTML
    return Kind.UNKNOWN
