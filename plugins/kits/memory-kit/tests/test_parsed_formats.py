"""DOCX, CSV, JSON, titles and headings, what undeclared bytes are read as, and the event loop meanwhile."""

from __future__ import annotations

import base64
import io
import json
import time
import zipfile
from collections.abc import Callable
from typing import Any

import docx
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_watch import LoopWatch
from reportlab.pdfgen.canvas import Canvas

from llamastack.provider.errors import InvalidRequestError
from llamastack_memory_kit.documents import ExtractionLimits, Heading, ReadDocument, read_document
from llamastack_memory_kit.documents.outline import markdown_headings
from llamastack_memory_kit.documents.worker import json_text

pytestmark = pytest.mark.anyio
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
OCTETS = "application/octet-stream"
_FIVE_MB = 5_000_000
_LONGEST_DELAY_S = 0.05
SENTENCE = "The llama grazes on the high plain before the rain comes. "


def data_url(raw: bytes, kind: str = "") -> str:
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


async def read(content: Any, mime_type: str | None = None, **options: Any) -> ReadDocument:
    async with httpx.AsyncClient() as client:
        return await read_document(content, client, mime_type=mime_type, **options)


def packed(document: Any) -> bytes:
    made = io.BytesIO()
    document.save(made)
    return made.getvalue()


def report() -> bytes:
    document = docx.Document()
    document.core_properties.title = "Yearly report"
    document.add_heading("Results", 1)
    document.add_paragraph("Grüße from the plain.")
    document.add_heading("Costs", 2)
    table = document.add_table(rows=2, cols=2)
    for place, text in enumerate(("item", "price", "hay", "12")):
        table.cell(place // 2, place % 2).text = text
    document.add_paragraph("")
    document.add_paragraph("The end.")
    return packed(document)


def replaced(raw: bytes, document: bytes) -> bytes:
    """A DOCX file with other contents of its main part."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, document if name == "word/document.xml" else old.read(name))
    return made.getvalue()


REPORT = "Results\n\nGrüße from the plain.\n\nCosts\n\nitem | price\nhay | 12\n\nThe end."


@pytest.mark.parametrize(
    ("kind", "own"),
    [(DOCX, None), (OCTETS, DOCX), (OCTETS, None), ("", None), ("application/zip", None), ("application/msword", None)],
)
async def test_docx(kind: str, own: str | None) -> None:
    found = await read(data_url(report(), kind), own)
    assert found.text == REPORT
    assert found.title == "Yearly report"
    assert found.headings == (Heading(0, 1, "Results"), Heading(REPORT.index("Costs"), 2, "Costs"))


def entities() -> bytes:
    nested = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    xml = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY e0 "{"lol" * 10}">{nested}]><w:document '
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return f'{xml}xmlns:w="{space}"><w:body><w:p><w:r><w:t>&e9;</w:t></w:r></w:p></w:body></w:document>'.encode()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: b"no docx", "is no DOCX that can be read"),
        (lambda: report()[:2000], "is no DOCX that can be read"),
        (lambda: packed(docx.Document()), "is DOCX without text"),
        (lambda: replaced(report(), document=b" " * 300_000_000), "unpacks to more than 268435456 bytes"),
        (lambda: replaced(report(), document=b"<a>" * 60_000_000), "is no DOCX|too much time or memory|more than 5 s"),
        (lambda: replaced(report(), document=entities()), "is no DOCX|without text"),
    ],
    ids=["text", "cut", "empty", "large", "deep", "entities"],
)
async def test_docx_that_is_refused(make: Callable[[], bytes], says: str) -> None:
    url = data_url(make(), DOCX)
    started = time.monotonic()
    with pytest.raises(InvalidRequestError, match=says):
        await read(url, limits=ExtractionLimits(seconds=5))
    assert time.monotonic() - started < 15


async def test_other_archives_are_refused() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("xl/workbook.xml", "<a/>")
    for kind in ("application/zip", OCTETS, ""):
        with pytest.raises(InvalidRequestError, match="documents .* are not supported; text .* DOCX are"):
            await read(data_url(made.getvalue(), kind))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("name,price\nhay,12\noats,\n", "name: hay\nprice: 12\n\nname: oats"),
        ('name;"price; each"\r\n"a ""b""\nc";1\r\n', 'name: a "b"\nc\nprice; each: 1'),
        ("name\tprice\nhay\t1,5\n", "name: hay\nprice: 1,5"),
        ("a|b\n1|2|3\n\n", "a: 1\nb: 2\n3"),
        ("1,2\n3,4\n", "1,2\n3,4"),  # no names
        ("a,a\n3,4\n", "a,a\n3,4"),
        ("a,\n3,4\n", "a,\n3,4"),
        ("name,price\n", "name,price"),
        ("", ""),
    ],
)
async def test_csv_rows_carry_the_names_of_their_columns(source: str, text: str) -> None:
    assert (await read(data_url(source.encode(), "text/csv"))).text == text
    assert (await read(source, "text/csv")).text == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r'{"a": "caf\u00e9 \ud83e\udd99 \n \u000a \\u00e9 \ud83e", "b": 2.50}', None),
        ('{"a": [1, null]}', '{"a": [1, null]}'),
        ("[" + "9" * 10_000 + "]", "[" + "9" * 10_000 + "]"),
    ],
)
async def test_json_is_read_without_escapes(source: str, text: str | None) -> None:
    for found in (await read(data_url(source.encode(), "application/json")), await read(source, "application/json")):
        assert found.text == text if text is not None else "café 🦙 " in found.text and r"\\u00e9 \ud83e" in found.text
    assert (await read(data_url(source.encode()))).text == found.text


async def test_json_that_is_broken_names_the_place() -> None:
    with pytest.raises(InvalidRequestError, match=r"is no JSON that can be read \(.* line 1 column 7"):
        await read('{"a": }', "application/json")
    assert (await read(data_url(rb'{"a": \u00e9}'))).text == r'{"a": \u00e9}'  # undeclared, it is text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        max_leaves=10,
    )
)
def test_json_keeps_its_values(value: Any) -> None:
    for written in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert json.loads(json_text(written)[0]) == value


async def test_html_has_a_title_and_headings() -> None:
    page = "<html><head><title> A &amp;\n B</title></head><body><p>x<h1>One  <b>two</b></h1><p>y<h3>Deep</h3>z"
    found = await read(page, "text/html")
    assert found.title == "A & B"
    assert [(each.level, each.text) for each in found.headings] == [(1, "One two"), (3, "Deep")]
    assert all(found.text[each.start :].lstrip().startswith(each.text[:3]) for each in found.headings)


def test_markdown_headings() -> None:
    lines = [
        "---",
        "title: x",
        "---",
        "# One #",
        "",
        "text",
        "Two",
        "===",
        "```",
        "# no",
        "~~~",
        "```",
        "  ### C# ",
        "#no",
    ]
    lines += ["- item", "---", "", "---", "Three", "---", "    # code", "####### seven"]
    text = "\n".join(lines)
    expected = [(1, "One"), (1, "Two"), (3, "C#"), (2, "Three")]
    assert [(each.level, each.text) for each in markdown_headings(text)] == expected
    for each in markdown_headings(text):
        assert text[each.start :].lstrip(" #").startswith(each.text)


# ---- the event loop --------------------------------------------------------------------------------------------------


def _pdf() -> bytes:
    made = io.BytesIO()
    canvas = Canvas(made, pageCompression=0)
    for _ in range(1000):
        for row in range(70):
            canvas.drawString(40, 800 - row * 11, SENTENCE)
        canvas.showPage()
    canvas.save()
    return made.getvalue()


def _docx() -> bytes:
    document = docx.Document()
    document.add_paragraph(SENTENCE)
    part = document.element.xml.encode()
    one = part[part.index(b"<w:p>") : part.index(b"</w:p>") + 6]
    return replaced(packed(document), document=part.replace(one, one * (_FIVE_MB // len(one))))


def _repeated(text: str) -> bytes:
    return (text * (_FIVE_MB // len(text))).encode()


LARGE = {
    "text": ("text/plain", lambda: _repeated(SENTENCE)),
    "markdown": ("text/markdown", lambda: _repeated(f"# Llamas\n\n{SENTENCE}\n\n")),
    "html": ("text/html", lambda: _repeated(f"<h2>Llamas</h2><p>{SENTENCE}</p>")),
    "csv": ("text/csv", lambda: b"name,note\n" + _repeated(f"llama,{SENTENCE}\n")),
    "json": ("application/json", lambda: b"[" + _repeated('{"n": "caf\\u00e9 llama"}, ') + b"1]"),
    "pdf": ("application/pdf", _pdf),
    "docx": (DOCX, _docx),
}


async def longest_delay(call: Callable[[], Any]) -> float:
    """Seconds of CPU that the process takes between two turns of its event loop at most, while `call` runs."""
    with LoopWatch() as watch:
        await call()
        await watch.look()
        found = watch.take()
    return max(found.step_s, found.gap_s)


@pytest.mark.parametrize("name", LARGE)
async def test_five_megabytes_delay_no_other_request(name: str) -> None:
    kind, make = LARGE[name]
    url = data_url(make(), kind)
    delays: list[float] = []

    async def call() -> None:
        found = await read(url, limits=ExtractionLimits(seconds=60))
        assert len(found.text) > 500_000

    for _ in range(3):  # the first call imports and compiles
        delays.append(await longest_delay(call))
        if delays[-1] < _LONGEST_DELAY_S:
            return
    pytest.fail(f"the event loop was delayed by {delays} s")
