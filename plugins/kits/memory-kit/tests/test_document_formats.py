"""What documents are read as: by their media types and bytes, with limits on what reading them takes."""

from __future__ import annotations

import base64
import codecs
import contextlib
import io
import os
import time
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_from_bytes

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter
from pypdf.generic import EncodedStreamObject, NameObject
from reportlab.pdfgen.canvas import Canvas

from llamastack.provider.errors import InvalidRequestError
from llamastack_adapters.data_urls import read_data_url
from llamastack_memory_kit.documents import ExtractionLimits, document_text
from llamastack_memory_kit.documents.encodings import ENCODINGS, encoding_named
from llamastack_memory_kit.documents.media_types import media_type_of

pytestmark = pytest.mark.anyio
_LONGEST_PAUSE_S = 0.3
PLAIN = "Grüße, 1 < 2 & more\n"
HTML = (
    "<html><head><title>t</title><script>alert(1)</script><style>p{}</style></head><body><p>One</p><p>Zwei &amp; ü</p>"
)
OCTETS = "application/octet-stream"


def data_url(raw: bytes, kind: str = "") -> str:
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


async def read(content: Any, mime_type: str | None = None, **options: Any) -> str:
    async with httpx.AsyncClient() as client:
        return await document_text(content, client, mime_type=mime_type, param="documents[2].content", **options)


def pdf(*pages: str) -> bytes:
    made = io.BytesIO()
    canvas = Canvas(made, pageCompression=1)
    for page in pages:
        if page:
            canvas.drawString(72, 720, page)
        canvas.showPage()
    canvas.save()
    return made.getvalue()


def locked(raw: bytes, password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(raw)))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


def bomb(megabytes: int) -> bytes:
    """A page with so much content, packed into a thousandth of that."""
    packer = zlib.compressobj()
    block = b"BT (x) Tj ET\n" * 80_000
    packed = b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()
    content = EncodedStreamObject()
    content._data = packed
    content[NameObject("/Filter")] = NameObject("/FlateDecode")
    writer = PdfWriter()
    page = writer.add_blank_page(72, 72)
    page[NameObject("/Contents")] = writer._add_object(content)
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


# ---- which type counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "kind", "own", "text"),
    [
        (PLAIN.encode(), "text/plain", None, PLAIN),
        (PLAIN.encode(), "TEXT/PLAIN", None, PLAIN),
        (PLAIN.encode(), "Text/Plain; Charset=UTF-8", None, PLAIN),
        (PLAIN.encode("latin-1"), "text/plain; charset=ISO-8859-1", None, PLAIN),
        (PLAIN.encode("latin-1"), OCTETS, 'text/markdown; charset="latin-1"', PLAIN),
        (PLAIN.encode(), OCTETS, "text/markdown", PLAIN),
        (PLAIN.encode(), OCTETS, "TEXT/Markdown", PLAIN),
        (PLAIN.encode(), "image/png", "text/plain", PLAIN),
        (PLAIN.encode(), "", None, PLAIN),
        (PLAIN.encode(), OCTETS, None, PLAIN),
        (PLAIN.encode(), OCTETS, OCTETS, PLAIN),
        (PLAIN.encode(), "text/plain", OCTETS, PLAIN),
        (PLAIN.encode(), "text/plain", "no media type", PLAIN),
        (PLAIN.encode(), "application/x-something", None, PLAIN),
        (b'{"a": 1}', "application/vnd.api+json", None, '{"a": 1}'),
        (b"<a/>", "application/atom+XML", None, "<a/>"),
        (b"<svg/>", "image/svg+xml", None, "<svg/>"),
        (b"a: 1", "application/yaml", None, "a: 1"),
        (b"let a", "application/javascript", None, "let a"),
        ("<?xml version='1.0' encoding='latin-1'?><a>é</a>".encode("latin-1"), "application/xml", None, None),
        (codecs.BOM_UTF8 + PLAIN.encode(), "text/plain", None, PLAIN),
        (PLAIN.encode("utf-16"), "text/plain", None, PLAIN),
        (PLAIN.encode("utf-16"), OCTETS, "text/plain; charset=utf-16", PLAIN),
        (HTML.encode(), "text/html", None, "One\n\nZwei & ü"),
        (HTML.encode("latin-1"), "TEXT/HTML; charset=latin-1", None, "One\n\nZwei & ü"),
        (HTML.encode("cp1252"), "text/html", None, "One\n\nZwei & ü"),
        (HTML.replace("<head>", '<head><meta charset="iso-8859-2">').encode("iso-8859-2"), "text/html", None, None),
        (HTML.encode(), "application/xhtml+xml", None, "One\n\nZwei & ü"),
        (HTML.encode(), OCTETS, "text/html", "One\n\nZwei & ü"),
        (HTML.encode(), OCTETS, None, "One\n\nZwei & ü"),
        (HTML.encode(), "text/html", "text/plain", HTML),
        (b" \n ", "text/html", None, ""),
        (pdf("Hello llama", "", "Second page"), "application/pdf", None, "Hello llama\n\nSecond page"),
        (pdf("Hello llama"), "Application/PDF; x=y", None, "Hello llama"),
        (pdf("Hello llama"), OCTETS, "application/pdf", "Hello llama"),
        (pdf("Hello llama"), OCTETS, None, "Hello llama"),
        (pdf("Hello llama"), "", None, "Hello llama"),
        (locked(pdf("Hello llama"), ""), "application/pdf", None, "Hello llama"),
    ],
)
async def test_what_is_read(raw: bytes, kind: str, own: str | None, text: str | None) -> None:
    found = await read(data_url(raw, kind), own)
    assert found == text if text is not None else ("é" in found or "Zwei & ü" in found)


@pytest.mark.parametrize(
    ("raw", "kind", "own", "says"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png", None, "documents of type 'image/png' are not supported"),
        (b"text", "image/png", None, "documents of type 'image/png' are not supported"),
        (b"text", "text/plain", "audio/MPEG", "documents of type 'audio/mpeg' are not supported"),
        (b"PK\x03\x04\x00", "application/zip", None, "documents of type 'application/zip' are not supported"),
        (b"a\x00b", OCTETS, None, f"documents of type '{OCTETS}' are not supported"),
        (b"a\x01b", "", None, "documents that are no text in utf-8 are not supported"),
        (b"\xff\xfe\xfa", "application/x-any", None, "documents of type 'application/x-any' are not supported"),
        (b"\xff", "text/plain", None, "the document is not text in utf-8"),
        (b"no pdf", "application/pdf", None, r"the document is no PDF that can be read"),
        (pdf("Hello")[:300], "application/pdf", None, r"the document is no PDF that can be read"),
        (b"", "application/pdf", None, r"the document is no PDF that can be read"),
        (pdf("", ""), "application/pdf", None, "the document is a PDF without text"),
        (locked(pdf("Hello"), "secret"), "application/pdf", None, "the document is an encrypted PDF"),
    ],
)
async def test_what_is_refused(raw: bytes, kind: str, own: str | None, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        await read(data_url(raw, kind), own)
    assert caught.value.param == "documents[2].content"


async def test_content_in_the_request_is_text_already() -> None:
    assert await read(PLAIN, "application/pdf") == PLAIN
    assert await read(PLAIN, OCTETS) == PLAIN
    assert await read(["<p>One</p>", "<p>Two</p>"], "text/html; charset=latin-1") == "One\n\nTwo"
    assert await read("<p>\ud800</p>", "text/html") == "?"


@pytest.mark.parametrize(
    ("text", "name", "charset"),
    [
        ('Text/HTML ; Charset = "UTF-8" ; x=1', "text/html", "UTF-8"),
        ("text/html;x=1;charset=a b", "text/html", "a"),
        ("text/html charset=x", "", None),
        ("text", "", None),
        ("", "", None),
        (None, "", None),
        ("a/b" * 200, "", None),
    ],
)
def test_media_types(text: str | None, name: str, charset: str | None) -> None:
    found = media_type_of(text)
    assert found.name == name
    assert charset is None or (found.charset or "").lower() == charset.lower()


# ---- encodings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
async def test_every_encoding_reads_what_it_writes(encoding: str) -> None:
    assert encoding_named(encoding) == encoding
    text = "abc 123\n" * 50_000
    url = data_url(text.encode(encoding), f"text/plain;charset={encoding}")
    assert await read(url) == text


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("UTF-8", "utf_8"),
        ("utf8", "utf_8"),
        ("ISO-8859-1", "latin_1"),
        ("Latin1", "latin_1"),
        ("windows-1252", "cp1252"),
        ("us-ascii", "ascii"),
        ("Shift_JIS", "shift_jis"),
        ("x-sjis", "shift_jis"),
        ("windows-31j", "cp932"),
        ("EUC-KR", "euc_kr"),
        ("ks_c_5601-1987", "euc_kr"),
        ("GB2312", "gb2312"),
        ("Big5", "big5"),
        ("KOI8-R", "koi8_r"),
        *(
            (name, None)
            for name in ("punycode", "idna", "rot13", "rot_13", "zlib", "bz2", "hex", "base64", "uu", "quopri")
        ),
        *(
            (name, None)
            for name in ("unicode_escape", "raw_unicode_escape", "utf-7", "u7", "unicode-1-1-utf-7", "undefined")
        ),
        *((name, None) for name in ("mbcs", "oem", "charmap", "palmos", "", "x" * 100, "../../x", "utf-8\x00", "ü")),
    ],
)
def test_names_of_encodings(name: str, encoding: str | None) -> None:
    assert encoding_named(name) == encoding


def cpu_s() -> float:
    """CPU time of this process and of those that it has started."""
    return sum(os.times()[:4])


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "unicode_escape", "zlib", "rot13", "undefined"])
@pytest.mark.parametrize("of", ["text/plain", "text/html", "application/json", "application/x-any", OCTETS])
async def test_codecs_that_are_no_encodings_of_text(of: str, charset: str) -> None:
    started = cpu_s()
    for url in (f"data:{of};charset={charset},{'a-' * 300_000}", data_url(b"a-" * 300_000, f"{of};charset={charset}")):
        with pytest.raises(InvalidRequestError, match=f"not text in {charset}|'{of}' are not supported"):
            await read(url)
    assert cpu_s() - started < 2


# ---- data: URLs ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.booleans())
def test_data_urls_hold_any_bytes(raw: bytes, whole: bool) -> None:
    pads = [0] if not whole else [65_533, 65_534, 65_535, 65_536]
    for pad in pads:
        padded = b"a" * pad + raw
        assert read_data_url("data:a/b," + quote_from_bytes(padded, safe=""), "p").data == padded
        for encoded in (base64.b64encode(padded).decode(), base64.encodebytes(padded).decode()):
            for written in (encoded, quote(encoded), quote(encoded).lower() if encoded.islower() else encoded):
                assert read_data_url(f"data:a/b;base64,{written}", "p").data == padded


@pytest.mark.parametrize(
    "url", ["data:text/plain", "data:" + ";" * 5000 + ",x", "data:;base64,a", "data:;base64,ü", "data:;base64,%41="]
)
def test_malformed_data_urls(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="data: URL is malformed"):
        read_data_url(url, "p")


# ---- limits ----------------------------------------------------------------------------------------------------------


async def longest_pause(call: Callable[[], Any]) -> float:
    """Seconds that the event loop stood still at most, while `call` ran; its error is passed over."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await anyio.sleep(0.005)
            longest = max(longest, time.monotonic() - before - 0.005)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await anyio.sleep(0.02)
        with contextlib.suppress(InvalidRequestError):
            await call()
        group.cancel_scope.cancel()
    return longest


@pytest.mark.parametrize(
    "url",
    [
        data_url(b"\xe9" * 20_000_000, "text/plain;charset=latin-1"),
        data_url(PLAIN.encode("gb18030") * 500_000, "text/plain;charset=gb18030"),
        data_url(b"a" * 20_000_000),
        "data:text/plain," + "%41" * 5_000_000,
        "data:text/plain," + "%" * 10_000_000,
        data_url(b"<div>" * 2_000_000, "text/html"),
    ],
    ids=["latin-1", "gb18030", "unknown", "escapes", "percents", "html"],
)
async def test_large_documents_do_not_hold_the_loop(url: str) -> None:
    pauses = []
    for _ in range(3):  # a busy machine pauses by itself
        pauses.append(await longest_pause(lambda: read(url, limits=ExtractionLimits(seconds=5))))
        if pauses[-1] < _LONGEST_PAUSE_S:
            return
    pytest.fail(f"the event loop stood still for {pauses} s")


async def test_limits_of_pages_text_and_time() -> None:
    many = data_url(pdf(*["text " * 10] * 5), "application/pdf")
    with pytest.raises(InvalidRequestError, match="is a PDF of 5 pages; at most 4 are read"):
        await read(many, limits=ExtractionLimits(pages=4))
    with pytest.raises(InvalidRequestError, match="is PDF with more than 100000 bytes of text"):
        await read(data_url(pdf(*["w" * 5000] * 50), "application/pdf"), max_bytes=100_000)
    with pytest.raises(InvalidRequestError, match=r"is PDF that takes more than 0.01 s to read"):
        await read(many, limits=ExtractionLimits(seconds=0.01))
    with pytest.raises(InvalidRequestError, match="larger than 10 bytes"):
        await read(data_url(b"x" * 11, "text/plain"), max_bytes=10)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: bomb(500), "application/pdf"),
        (lambda: b"<table><tr>" + b"<td>x" * 300_000, "text/html"),
        (lambda: b"<table>" + b"<tr><td>x" * 50_000 + b"<tr><td>" + b"y" * 100_000, "text/html"),
    ],
    ids=["packed", "time", "memory"],
)
async def test_what_would_take_too_much_is_given_up(make: Callable[[], bytes], kind: str) -> None:
    url = data_url(make(), kind)
    started = time.monotonic()
    with pytest.raises(InvalidRequestError, match="is a PDF without text|too much time or memory|more than 2 s"):
        await read(url, limits=ExtractionLimits(seconds=2))
    assert time.monotonic() - started < 10


async def test_giving_up_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[anyio.abc.Process] = []
    real = anyio.open_process

    async def watched(*arguments: Any, **options: Any) -> anyio.abc.Process:
        started.append(await real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr("anyio._core._subprocesses.open_process", watched)
    slow = data_url(b"<table><tr>" + b"<td>x" * 300_000, "text/html")
    with anyio.move_on_after(0.5) as scope:
        await read(slow)
    assert scope.cancelled_caught
    assert [process.returncode is not None for process in started] == [True]


async def test_few_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0
    real = anyio.run_process

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await real(*arguments, **options)
        finally:
            running -= 1

    monkeypatch.setattr(anyio, "run_process", counted)
    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(read, data_url(b"<p>x</p>", "text/html"))
    assert most == 2
