"""data: URLs, in which clients send images and documents."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from llamastack.provider.errors import InvalidRequestError

_SCHEME = "data:"
_LONGEST_HEAD = 1024
_STEP = 64 * 1024
_ESCAPED = ((b"%2B", b"+"), (b"%2F", b"/"), (b"%3D", b"="), (b"%0A", b""), (b"%0D", b""), (b"%20", b""))


class DataUrl(NamedTuple):
    """What a data: URL holds.

    media_type: in lower case, "" if the URL names none.
    charset: the URL's, or None.
    data: the bytes.
    """

    media_type: str
    charset: str | None
    data: bytes


def is_data_url(url: str) -> bool:
    """Whether `url` is a data: URL."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def read_data_url(url: str, param: str) -> DataUrl:
    """What a data: URL holds: `data:[<mediatype>][;base64],<data>` (RFC 2397).

    Raises InvalidRequestError, naming `param`, for a URL without a comma or with malformed base64.
    """
    end = url.find(",", 0, _LONGEST_HEAD)
    if end < 0:
        raise InvalidRequestError("the data: URL is malformed: it has no ','", param=param)
    media_type, *options = (part.strip().lower() for part in url[len(_SCHEME) : end].split(";"))
    charset = next((o.removeprefix("charset=").strip("\"'") for o in options if o.startswith("charset=")), None)
    if "base64" not in options:
        return DataUrl(media_type, charset, _unquoted(url[end + 1 :]))
    try:
        return DataUrl(media_type, charset, base64.b64decode(_base64_of(url[end + 1 :]), validate=True))
    except (binascii.Error, ValueError):
        raise InvalidRequestError("the base64 of the data: URL is malformed", param=param) from None


def _base64_of(data: str) -> bytes:
    """Base64 without line breaks, and with its characters no longer escaped for a URL."""
    raw = data.encode("ascii")
    if b"%" in raw:
        for escaped, plain in _ESCAPED:
            raw = raw.replace(escaped, plain).replace(escaped.lower(), plain)
    return raw.translate(None, b" \t\r\n")


def _unquoted(data: str) -> bytes:
    """Decode in steps: `unquote_to_bytes` makes an object for each escape, a hundred times the size of the text."""
    if "%" not in data:
        return data.encode("utf-8", "replace")
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + _STEP
        # No step ends within an escape.
        end -= next((back for back in (2, 1) if data[end - back : end - back + 1] == "%"), 0) if end < len(data) else 0
        parts.append(unquote_to_bytes(data[at:end].encode("utf-8", "replace")))
        at = end
    return b"".join(parts)
