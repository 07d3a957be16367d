"""data: URLs, by which clients hand over images and documents."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from llamastack.provider.errors import InvalidRequestError

_SCHEME = "data:"


class DataUrl(NamedTuple):
    """What a data: URL holds.

    media_type: in small letters, "" where the URL names none.
    charset: as the URL says, or None.
    data: the bytes themselves.
    """

    media_type: str
    charset: str | None
    data: bytes


def is_data_url(url: str) -> bool:
    """Whether `url` is a data: URL."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def read_data_url(url: str, param: str) -> DataUrl:
    """What a data: URL holds: `data:[<mediatype>][;base64],<data>` (RFC 2397).

    Raises InvalidRequestError, naming `param`, for base64 that is malformed.
    """
    head, _, data = url[len(_SCHEME) :].partition(",")
    media_type, *options = (part.strip().lower() for part in head.split(";"))
    raw = unquote_to_bytes(data)
    if "base64" in options:
        try:
            raw = base64.b64decode(raw, validate=True)
        except binascii.Error:
            raise InvalidRequestError("the base64 of the data: URL is malformed", param=param) from None
    charset = next((o.removeprefix("charset=") for o in options if o.startswith("charset=")), None)
    return DataUrl(media_type, charset, raw)
