"""Paths and queries of the URLs of a backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import quote

from llamastack.provider.errors import InvalidRequestError

Params: TypeAlias = Mapping[str, str | int | float]
"""The query of a URL."""


def url_path(*segments: str | int) -> str:
    """The path of these segments, such as `/items/a%2Fb`. Each is quoted: a name may hold `/`, `?` or a blank.

    Raises InvalidRequestError for "", "." and "..", which would name something else: no URL can hold them.
    """
    for segment in segments:
        if segment in ("", ".", ".."):
            raise InvalidRequestError(f"'{segment}' cannot be a name: it cannot be part of the backend's URLs")
    return "".join(f"/{quote(str(segment), safe='')}" for segment in segments)
