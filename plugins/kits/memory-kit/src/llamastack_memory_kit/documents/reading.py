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
from llamastack_memory_kit.documents.outline import ReadDocument, markdown_headings

_DEFAULT_LIMITS = ExtractionLimits()
_PEEK_BYTES = 1024
_LARGE = 64 * 1024
_PARSED = {Kind.HTML: "html", Kind.PDF: "pdf", Kind.DOCX: "docx", Kind.CSV: "csv", Kind.JSON: "json"}
_SUPPORTED = "text in utf-8 or a declared charset, HTML, PDF and DOCX are"
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
    """The text of `content`; the same as `(await read_document(...)).text`."""
    read = await read_document(
        content,
        client,
        mime_type=mime_type,
        max_bytes=max_bytes,
        allow_private=allow_private,
        param=param,
        fetch_timeout_s=fetch_timeout_s,
        limits=limits,
    )
    return read.text


async def read_document(
    content: InterleavedTextMedia,
    client: httpx.AsyncClient,
    *,
    mime_type: str | None = None,
    max_bytes: int = 32 * 2**20,
    allow_private: bool = False,
    param: str = "content",
    fetch_timeout_s: float | None = None,
    limits: ExtractionLimits = _DEFAULT_LIMITS,
) -> ReadDocument:
    """The text, the title and the headings of `content`, fetched with `client` if it is an http(s) URL.

    mime_type: the document's type; it overrides the type in the URL or the answer. Without any, the first bytes decide.
    max_bytes: the most bytes to fetch, and the most bytes of text to extract from other formats.
    allow_private: also fetch from loopback, private and link-local addresses; set it only if every client may see what
        they serve.
    param: the path of the content in the request, for errors.
    fetch_timeout_s: seconds that fetching may take, in addition to the limits of `client`.
    limits: the limits for reading what is no plain text.

    Raises InvalidRequestError for images, types that are no text, file: URLs (a server must not show its files to
    clients), documents that cannot be read, and URLs that cannot be fetched or answer with an error.
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


async def _inline_text(text: str, own: MediaType, max_bytes: int, param: str, limits: ExtractionLimits) -> ReadDocument:
    """The text of content inside the request. It is already text; HTML, CSV and JSON are read by their type."""
    kind = kind_of(own.name, b"")
    if kind is Kind.MARKDOWN:
        return await _markdown(text)
    if kind not in (Kind.HTML, Kind.CSV, Kind.JSON):
        return ReadDocument(text)
    return await extracted(_PARSED[kind], await _encoded(text), limits, max_bytes, param)


async def _markdown(text: str) -> ReadDocument:
    if len(text) <= _LARGE:
        return ReadDocument(text, headings=markdown_headings(text))
    return ReadDocument(text, headings=await anyio.to_thread.run_sync(markdown_headings, text))


async def _encoded(text: str) -> bytes:
    if len(text) <= _LARGE:
        return text.encode("utf-8", "replace")
    return await anyio.to_thread.run_sync(text.encode, "utf-8", "replace")


async def _read(raw: bytes, kind: MediaType, max_bytes: int, param: str, limits: ExtractionLimits) -> ReadDocument:
    match kind_of(kind.name, raw):
        case Kind.TEXT:
            return ReadDocument(await decoded(raw, kind.charset or _declared(kind.name, raw), param))
        case Kind.MARKDOWN:
            return await _markdown(await decoded(raw, kind.charset, param))
        case Kind.PDF | Kind.DOCX as packed:
            return await extracted(_PARSED[packed], raw, limits, max_bytes, param)
        case Kind.HTML:
            source = await _encoded(await _html_source(raw, kind, param))
            return await extracted("html", source, limits, max_bytes, param)
        case Kind.CSV | Kind.JSON as parsed:
            source = await _encoded(await decoded(raw, kind.charset, param))
            return await extracted(_PARSED[parsed], source, limits, max_bytes, param)
        case Kind.LIKE_JSON | Kind.UNKNOWN as guessed:
            try:
                text = await decoded(raw, kind.charset, param, plain=True)
            except InvalidRequestError:
                pass
            else:
                return (
                    await _json_or_text(text, max_bytes, param, limits)
                    if guessed is Kind.LIKE_JSON
                    else ReadDocument(text)
                )
    shown = f"of type '{kind.name[:100]}'" if kind.name else "that are no text in utf-8"
    raise InvalidRequestError(f"documents {shown} are not supported; {_SUPPORTED}", param=param)


async def _json_or_text(text: str, max_bytes: int, param: str, limits: ExtractionLimits) -> ReadDocument:
    """A text that starts like JSON; without a declared type it need not be JSON."""
    if "\\u" not in text:
        return ReadDocument(text)  # the same in both cases
    try:
        return await extracted("json", await _encoded(text), limits, max_bytes, param)
    except InvalidRequestError:
        return ReadDocument(text)


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
