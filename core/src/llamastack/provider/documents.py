"""The text of a document that may be content, a data: URL or an http(s) URL."""

from __future__ import annotations

import ipaddress

import anyio
import httpx

from llamastack.api.common import InterleavedTextMedia, is_url
from llamastack.provider.data_urls import read_data_url
from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.http import reason_of_http_error

_MOST_REDIRECTS = 5
_TEXTUAL = ("text/", "application/json", "application/xml", "application/yaml", "application/x-yaml")


def _decode(raw: bytes, charset: str | None, param: str) -> str:
    try:
        return raw.decode(charset or "utf-8")
    except (ValueError, LookupError):
        raise InvalidRequestError(f"the document is not text in {charset or 'utf-8'}", param=param) from None


def _refuse_binary(mime_type: str, param: str) -> None:
    if mime_type and not mime_type.startswith(_TEXTUAL):
        raise InvalidRequestError(f"documents of type '{mime_type}' are not supported, text is", param=param)


def _text_of_data_url(url: str, param: str) -> str:
    media_type, charset, data = read_data_url(url, param)
    _refuse_binary(media_type, param)
    return _decode(data, charset, param)


async def _refuse_private(url: httpx.URL, shown: str, param: str) -> None:
    """A server must not fetch for a client what only the server can reach (its own services, cloud metadata)."""
    try:
        found = await anyio.getaddrinfo(url.host, url.port or url.scheme)
    except (OSError, UnicodeError) as error:
        raise InvalidRequestError(f"{shown} cannot be fetched: the host is not known", param=param) from error
    for *_, address in found:
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global:
            raise InvalidRequestError(f"{shown} is not fetched: it leads to a private address", param=param)


async def _fetch(url: str, client: httpx.AsyncClient, max_bytes: int, allow_private: bool, param: str) -> str:
    shown = url.partition("?")[0].partition("#")[0]
    try:
        target = httpx.URL(url)
        for _ in range(_MOST_REDIRECTS + 1):
            if not allow_private:
                await _refuse_private(target, shown, param)
            async with client.stream("GET", target, follow_redirects=False) as reply:
                if reply.next_request is not None:
                    target = reply.next_request.url
                    continue
                return await _text_of_reply(reply, shown, max_bytes, param)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        reason = reason_of_http_error(error) if isinstance(error, httpx.HTTPError) else str(error)
        raise InvalidRequestError(f"{shown} cannot be fetched: {reason}", param=param) from error
    raise InvalidRequestError(f"{shown} leads through more than {_MOST_REDIRECTS} redirects", param=param)


async def _text_of_reply(reply: httpx.Response, shown: str, max_bytes: int, param: str) -> str:
    if not reply.is_success:
        raise InvalidRequestError(f"{shown} answered {reply.status_code}: nothing was stored", param=param)
    _refuse_binary(reply.headers.get("content-type", "").partition(";")[0].strip(), param)
    raw = bytearray()
    async for block in reply.aiter_bytes():
        raw += block
        if len(raw) > max_bytes:
            raise InvalidRequestError(f"{shown} is larger than {max_bytes} bytes", param=param)
    return _decode(bytes(raw), reply.charset_encoding, param)


async def document_text(
    content: InterleavedTextMedia,
    client: httpx.AsyncClient,
    *,
    max_bytes: int = 32 * 2**20,
    allow_private: bool = False,
    param: str = "content",
) -> str:
    """The text of `content`, fetched with `client` where it is an http(s) URL.

    max_bytes: the most bytes that are fetched.
    allow_private: fetch from loopback, private and link-local addresses, too; only where every client may see what
        they serve.
    param: where the content stands in the request, for errors.

    Raises InvalidRequestError for images, binary types, file: URLs (a server does not read its files out to clients),
    and URLs that cannot be fetched or answer with an error.
    """
    if isinstance(content, str):
        if not is_url(content):
            return content
        if content[:5].lower() == "data:":
            return _text_of_data_url(content, param)
        if content[:5].lower() == "file:":
            raise InvalidRequestError("file: URLs are not read here; send the text itself", param=param)
        return await _fetch(content, client, max_bytes, allow_private, param)
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    for place, part in enumerate(parts):
        if not isinstance(part, str):
            raise InvalidRequestError("images cannot be stored as text", param=f"{param}[{place}]")
        texts.append(part)
    return "\n".join(texts)
