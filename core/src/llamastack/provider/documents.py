"""The text of a document that may be content, a data: URL or an http(s) URL."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

import httpx

from llamastack.api.common import InterleavedTextMedia, is_url
from llamastack.provider.errors import InvalidRequestError

_TEXTUAL = ("text/", "application/json", "application/xml", "application/yaml", "application/x-yaml")


def _decode(raw: bytes, charset: str | None, param: str) -> str:
    try:
        return raw.decode(charset or "utf-8")
    except (UnicodeDecodeError, LookupError):
        raise InvalidRequestError(f"the document is not text in {charset or 'utf-8'}", param=param) from None


def _refuse_binary(mime_type: str, param: str) -> None:
    if mime_type and not mime_type.startswith(_TEXTUAL):
        raise InvalidRequestError(f"documents of type '{mime_type}' are not supported, text is", param=param)


def _text_of_data_url(url: str, param: str) -> str:
    # RFC 2397: data:[<mediatype>][;base64],<data>
    head, comma, data = url.removeprefix("data:").partition(",")
    if not comma:
        raise InvalidRequestError("a data: URL needs a ',' before its data", param=param)
    mime_type, *options = head.split(";")
    _refuse_binary(mime_type, param)
    raw = unquote_to_bytes(data)
    if "base64" in options:
        try:
            raw = base64.b64decode(raw, validate=True)
        except binascii.Error:
            raise InvalidRequestError("the base64 of the data: URL is malformed", param=param) from None
    charset = next((o.removeprefix("charset=") for o in options if o.startswith("charset=")), None)
    return _decode(raw, charset, param)


async def _fetch(url: str, client: httpx.AsyncClient, max_bytes: int, param: str) -> str:
    shown = url.partition("?")[0].partition("#")[0]
    try:
        async with client.stream("GET", url) as reply:
            if not reply.is_success:
                raise InvalidRequestError(f"{shown} answered {reply.status_code}: nothing was stored", param=param)
            _refuse_binary(reply.headers.get("content-type", "").partition(";")[0].strip(), param)
            raw = bytearray()
            async for block in reply.aiter_bytes():
                raw += block
                if len(raw) > max_bytes:
                    raise InvalidRequestError(f"{shown} is larger than {max_bytes} bytes", param=param)
            return _decode(bytes(raw), reply.charset_encoding, param)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise InvalidRequestError(
            f"{shown} cannot be fetched: {type(error).__name__} {error}".rstrip(), param=param
        ) from error


async def document_text(
    content: InterleavedTextMedia, client: httpx.AsyncClient, *, max_bytes: int = 32 * 2**20, param: str = "content"
) -> str:
    """The text of `content`, fetched with `client` where it is an http(s) URL.

    max_bytes: the most bytes that are fetched.
    param: where the content stands in the request, for errors.

    Raises InvalidRequestError for images, binary types, file: URLs (a server does not read its files out to clients),
    and URLs that cannot be fetched or answer with an error.
    """
    if isinstance(content, str):
        if not is_url(content):
            return content
        if content.startswith("data:"):
            return _text_of_data_url(content, param)
        if content.startswith("file:"):
            raise InvalidRequestError("file: URLs are not read here; send the text itself", param=param)
        return await _fetch(content, client, max_bytes, param)
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    for place, part in enumerate(parts):
        if not isinstance(part, str):
            raise InvalidRequestError("images cannot be stored as text", param=f"{param}[{place}]")
        texts.append(part)
    return "\n".join(texts)
