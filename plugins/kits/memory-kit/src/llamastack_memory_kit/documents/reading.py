"""Reads the text of a document from its content."""

from __future__ import annotations

import re

import anyio.to_thread
import httpx

from llamastack.api.common import InterleavedTextMedia, is_url
from llamastack.provider.errors import InvalidRequestError
from llamastack_adapters.data_urls import read_data_url
from llamastack_memory_kit.documents.encodings import decoded, encoding_named
from llamastack_memory_kit.documents.extraction import ExtractionLimits, extracted
from llamastack_memory_kit.documents.fetching import Fetching, fetched
from llamastack_memory_kit.documents.media_types import Kind, MediaType, kind_of, media_type_of

_DEFAULT_LIMITS = ExtractionLimits()
_PEEK_BYTES = 1024
_LARGE = 64 * 1024
# How a file declares its own encoding: https://html.spec.whatwg.org/multipage/parsing.html, and XML 1.0, section 4.3.3.
_DECLARED = re.compile(
    rb"<meta[^>]{1,200}?charset\s*=\s*[\"']?\s*([a-z0-9_.:-]{1,40})|<\?xml[^>]{1,200}?encoding\s*=\s*[\"']([a-z0-9_.:-]{1,40})",
    re.IGNORECASE,
)


async def document_text(
    content: InterleavedTextMedia,
    client: httpx.AsyncClient,
    *,
    mime_type: str | None = None,
    max_bytes: int = 32 * 2**20,
    allow_private: bool = False,
    param: str = "content",
    fetch_timeout_s: float | None = None,
    limits: ExtractionLimits = _DEFAULT_LIMITS,
) -> str:
    """The text of `content`, fetched with `client` if it is an http(s) URL.

    mime_type: the document's type; it overrides the type in the URL or the answer.
    max_bytes: the most bytes to fetch, and the most bytes of text to extract from HTML and PDF.
    allow_private: also fetch from loopback, private and link-local addresses; set it only if every client may see what
        they serve.
    param: the path of the content in the request, for errors.
    fetch_timeout_s: seconds that fetching may take, in addition to the limits of `client`.
    limits: the limits for reading HTML and PDF.

    Raises InvalidRequestError for images, types that are no text, file: URLs (a server must not show its files to
    clients), documents that cannot be read, and URLs that cannot be fetched or answer with an error; NotSupportedError
    for HTML and PDF if the extra `documents` is not installed.
    """
    own = media_type_of(mime_type)
    given: MediaType
    if not isinstance(content, str) or not is_url(content):
        return await _inline_text(_joined(content, param), own, max_bytes, param, limits)
    if content[:5].lower() == "file:":
        raise InvalidRequestError("file: URLs are not read here; send the text itself", param=param)
    if content[:5].lower() == "data:":
        url = (
            await anyio.to_thread.run_sync(read_data_url, content, param)
            if len(content) > _LARGE
            else read_data_url(content, param)
        )
        raw, given = url.data, MediaType(url.media_type, url.charset)
        if len(raw) > max_bytes:
            raise InvalidRequestError(f"the document is larger than {max_bytes} bytes", param=param)
    else:
        how = Fetching(client, max_bytes, allow_private, fetch_timeout_s)
        raw, header = await fetched(content, how, param)
        given = media_type_of(header)
    name = given.name if own.is_general else own.name
    return await _read(raw, MediaType(name, own.charset or given.charset), max_bytes, param, limits)


def _joined(content: InterleavedTextMedia, param: str) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    for place, part in enumerate(parts):
        if not isinstance(part, str):
            raise InvalidRequestError("images cannot be stored as text", param=f"{param}[{place}]")
        texts.append(part)
    return "\n".join(texts)


async def _inline_text(text: str, own: MediaType, max_bytes: int, param: str, limits: ExtractionLimits) -> str:
    """The text of content inside the request. It is already text; only HTML is reduced to its visible text."""
    if kind_of(own.name, b"") is not Kind.HTML:
        return text
    return await extracted("html", text.encode("utf-8", "replace"), limits, max_bytes, param)


async def _read(raw: bytes, kind: MediaType, max_bytes: int, param: str, limits: ExtractionLimits) -> str:
    match kind_of(kind.name, raw):
        case Kind.TEXT:
            return await decoded(raw, kind.charset or _declared(kind.name, raw), param)
        case Kind.PDF:
            return await extracted("pdf", raw, limits, max_bytes, param)
        case Kind.HTML:
            source = await _html_source(raw, kind, param)
            return await extracted("html", source.encode("utf-8", "replace"), limits, max_bytes, param)
        case Kind.UNKNOWN:
            try:
                return await decoded(raw, kind.charset, param, plain=True)
            except InvalidRequestError:
                pass
    shown = f"of type '{kind.name[:100]}'" if kind.name else "that are no text in utf-8"
    raise InvalidRequestError(
        f"documents {shown} are not supported; text in utf-8 or a declared charset, HTML and PDF are", param=param
    )


async def _html_source(raw: bytes, kind: MediaType, param: str) -> str:
    charset = kind.charset or _declared(kind.name, raw)
    if charset is not None:
        return await decoded(raw, charset, param)
    try:
        return await decoded(raw, None, param)
    except InvalidRequestError:
        # Browsers read a page without a declared encoding like this.
        return await decoded(raw, "windows-1252", param)


def _declared(name: str, raw: bytes) -> str | None:
    if name and not name.endswith(("html", "xml")):
        return None
    found = _DECLARED.search(raw[:_PEEK_BYTES])
    charset = None if found is None else (found[1] or found[2]).decode("ascii")
    return charset if charset is not None and encoding_named(charset) is not None else None
