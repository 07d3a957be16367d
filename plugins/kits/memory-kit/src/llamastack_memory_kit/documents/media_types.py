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
_DOCX = {"application/vnd.openxmlformats-officedocument.wordprocessingml.document"}
# Servers give a DOCX file these types, too.
_MAY_BE_DOCX = {"application/zip", "application/x-zip-compressed", "application/msword"}
_CSV = {"text/csv", "text/x-csv", "text/comma-separated-values", "text/tab-separated-values", "application/csv"}
_MARKDOWN = {"text/markdown", "text/x-markdown", "application/x-markdown"}
_TEXT = {
    *(f"application/{name}" for name in ("xml", "yaml", "x-yaml", "toml", "sql", "graphql", "x-tex")),
    *(f"application/{name}" for name in ("javascript", "x-javascript", "ecmascript", "typescript", "x-sh", "x-python")),
    *(f"application/{name}" for name in ("x-ndjson", "ndjson", "jsonl", "jsonlines", "json5")),
}
_NEVER_TEXT = ("image/", "audio/", "video/", "font/")
_PDF_MARK = b"%PDF-"
_ZIP_MARK = b"PK\x03\x04"
_WORD_FOLDER = b"word/"
_HTML_MARK = re.compile(rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_JSON_MARK = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*[\"}]|\[\s*[\[{\"\]\d-])")
_PEEK_BYTES = 1024


class Kind(Enum):
    """How a document is read."""

    TEXT = auto()
    HTML = auto()
    PDF = auto()
    DOCX = auto()
    CSV = auto()
    JSON = auto()
    MARKDOWN = auto()
    LIKE_JSON = auto()
    """JSON by its first characters; text, if it is not JSON."""
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
    declared = _declared_kind(name)
    if declared is not None:
        return declared
    if name in _MAY_BE_DOCX:
        return Kind.DOCX if _is_docx(raw) else Kind.BINARY
    return _sniffed(raw) if MediaType(name).is_general else Kind.UNKNOWN


def _declared_kind(name: str) -> Kind | None:
    for names, kind in ((_HTML, Kind.HTML), (_PDF, Kind.PDF), (_DOCX, Kind.DOCX), (_CSV, Kind.CSV)):
        if name in names:
            return kind
    if name in _MARKDOWN:
        return Kind.MARKDOWN
    if name in ("application/json", "text/json") or name.endswith("+json"):
        return Kind.JSON
    if name.startswith("text/") or name.endswith(("+xml", "+yaml")) or name in _TEXT:
        return Kind.TEXT
    return Kind.BINARY if name.startswith(_NEVER_TEXT) else None


def _sniffed(raw: bytes) -> Kind:
    if raw.startswith(_PDF_MARK):
        return Kind.PDF
    if _is_docx(raw):
        return Kind.DOCX
    if _HTML_MARK.match(raw[:_PEEK_BYTES]):
        return Kind.HTML
    return Kind.LIKE_JSON if _JSON_MARK.match(raw[:_PEEK_BYTES]) else Kind.UNKNOWN


def _is_docx(raw: bytes) -> bool:
    """Whether it is a ZIP archive with a folder `word`; archives name their files in the clear."""
    return raw.startswith(_ZIP_MARK) and _WORD_FOLDER in raw
