"""The program that reads documents in a separate process: a hostile file could use up all time and memory.

`extraction.py` starts it as a file; it imports nothing of llamastack. Arguments: the kind (`html`, `pdf`, `docx`, `csv`
or `json`), the most pages, the most bytes of text, the most bytes of memory, the most seconds of processor time. The
document comes from stdin; HTML, CSV and JSON as UTF-8. The answer goes to stdout: `-` and the error, or `+` and a line
of JSON, [title, [[start, level, text of a heading], ...]], and then the text as UTF-8.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

NOT_INSTALLED = 3
"""The exit status if a package is missing."""
_LOCKED = "is an encrypted PDF; send it without a password"
_DELIMITERS = ",;\t|"
_MOST_UNPACKED = 256 * 2**20
_MOST_FILES = 10_000
_HTML_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,1000})</title", re.IGNORECASE)
_TITLE_WITHIN = 2**16
_HEADING_STYLE = re.compile(r"heading ([1-6])", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[\d.,]+(?:[eE][-+]?\d+)?%?")
# A backslash and what it escapes; some characters take two escapes (RFC 8259, section 7).
_JSON_ESCAPE = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|.)")
_FIRST_READABLE = 0xA0

Outline = list[tuple[int, int, str]]
"""The headings: (start in characters, level 1 to 6, text)."""


class UnreadableError(Exception):
    """The document cannot be read. The message continues the words `the document`."""


def limit_resources(memory_bytes: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the time limit of the parent still counts
        return
    limits = ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0))
    for kind, most in (*limits, (resource.RLIMIT_AS, memory_bytes)):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):  # macOS refuses some
            continue


def html_text(source: str) -> tuple[str, str, Outline]:
    from inscriptis import get_annotated_text  # type: ignore[import-untyped]
    from inscriptis.model.config import ParserConfig  # type: ignore[import-untyped]

    if not source.strip():
        return "", "", []
    found = get_annotated_text(source, ParserConfig(annotation_rules={f"h{n}": [str(n)] for n in range(1, 7)}))
    text = str(found["text"])
    cut = len(text) - len(text.lstrip())
    outline = sorted(
        (max(start - cut, 0), int(level), " ".join(text[start:end].split())) for start, end, level in found["label"]
    )
    title = _HTML_TITLE.search(source[:_TITLE_WITHIN])
    return text.strip(), "" if title is None else _line(html.unescape(title[1])), outline


def pdf_text(data: bytes, most_pages: int, most_bytes: int) -> tuple[str, str, Outline]:
    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(data))
    if _is_locked(reader):
        raise UnreadableError(_LOCKED)
    if len(reader.pages) > most_pages:
        raise UnreadableError(f"is a PDF of {len(reader.pages)} pages; at most {most_pages} are read")
    parts: list[str] = []
    size = 0
    for page in reader.pages:
        parts.append(page.extract_text().strip())
        size += len(parts[-1])
        if size > most_bytes:
            break  # `answer` reports it
    text = "\n\n".join(filter(None, parts))
    if not text:
        raise UnreadableError("is a PDF without text; pages that are pictures are not read")
    title = None if reader.metadata is None else reader.metadata.title
    return text, _line(title) if isinstance(title, str) else "", []


def _is_locked(reader: Any) -> bool:
    """Whether the PDF needs a password or a cipher that is not installed."""
    from pypdf.errors import DependencyError

    try:
        return bool(reader.is_encrypted) and not reader.decrypt("")
    except (DependencyError, NotImplementedError):
        return True


def docx_text(data: bytes) -> tuple[str, str, Outline]:
    import docx
    from docx.table import Table

    _check_packed(data)
    document = docx.Document(io.BytesIO(data))
    levels = {style.style_id: level for style in document.styles if (level := _level(style.name or "")) > 0}
    parts: list[str] = []
    outline: Outline = []
    place = 0
    for block in document.iter_inner_content():
        part = "\n".join(_rows(block)) if isinstance(block, Table) else block.text.strip()
        if not part:
            continue
        style = None if isinstance(block, Table) else block._p.style  # `block.style` searches all styles each time
        if style in levels:
            outline.append((place, levels[style], _line(part)))
        parts.append(part)
        place += len(part) + 2
    if not parts:
        raise UnreadableError("is DOCX without text; pictures are not read")
    return "\n\n".join(parts), _line(document.core_properties.title or ""), outline


def _level(style: str) -> int:
    """The level of the headings of a style; 0 for other styles."""
    found = _HEADING_STYLE.fullmatch(style)
    return int(found[1]) if found is not None else int(style == "Title")


def _check_packed(data: bytes) -> None:
    """Refuse what unpacks to too much; `zipfile` never unpacks more than what the archive declares."""
    import zipfile

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = archive.infolist()
        if len(files) > _MOST_FILES or sum(file.file_size for file in files) > _MOST_UNPACKED:
            raise UnreadableError(f"is DOCX that unpacks to more than {_MOST_UNPACKED} bytes or {_MOST_FILES} files")


def _rows(table: Any) -> Iterator[str]:
    """The rows of a table of a DOCX file; a cell that covers several columns comes once."""
    for row in table.rows:
        cells = {id(cell._tc): _line(cell.text) for cell in row.cells}
        if any(cells.values()):
            yield " | ".join(cells.values())


def csv_text(source: str, most_bytes: int) -> tuple[str, str, Outline]:
    """Each row with the names of its columns, `name: value` in lines, so that a chunk of any rows says what they are.

    The first row has the names if its cells are filled, different and no numbers, and other rows follow; without
    names, the text stays as it is.
    """
    csv.field_size_limit(max(most_bytes, 1))
    start = source.lstrip("\r\n")
    first_line = re.sub(r'"[^"]*"', "", start[: start.find("\n")] if "\n" in start else start)
    delimiter = max(_DELIMITERS, key=first_line.count)
    rows = csv.reader(io.StringIO(source, newline=""), delimiter=delimiter)
    names = [_line(cell) for cell in next((row for row in rows if row), [])]
    if not names or len({*names, ""}) <= len(names) or any(_NUMBER.fullmatch(name) for name in names):
        return source.strip(), "", []
    texts: list[str] = []
    size = 0
    for row in rows:
        text = "\n".join(
            f"{names[place]}: {cell.strip()}" if place < len(names) else cell.strip()
            for place, cell in enumerate(row)
            if cell.strip()
        )
        if text:
            texts.append(text)
            size += len(text)
        if size > most_bytes:
            break  # `answer` reports it
    return ("\n\n".join(texts) if texts else source.strip()), "", []


def json_text(source: str) -> tuple[str, str, Outline]:
    """The text as it is, but with characters instead of their `\\u` escapes, which no query would find."""
    # `bool` keeps no value, so that the check takes little memory; and a number may have any length.
    json.loads(source, parse_int=bool, parse_float=bool, object_pairs_hook=bool)
    return _JSON_ESCAPE.sub(_unescaped, source) if "\\u" in source else source, "", []


def _unescaped(found: re.Match[str]) -> str:
    high, low, single = found.groups()
    if high is not None:
        return bytes.fromhex(high + low).decode("utf-16-be")
    code = int(single, 16) if single is not None else 0
    return chr(code) if code >= _FIRST_READABLE and not 0xD800 <= code <= 0xDFFF else found[0]


def _line(text: str) -> str:
    return " ".join(text.split())


def _read(kind: str, data: bytes, most_pages: int, most_bytes: int) -> tuple[str, str, Outline]:
    if kind == "pdf":
        return pdf_text(data, most_pages, most_bytes)
    if kind == "docx":
        return docx_text(data)
    source = data.decode("utf-8")
    if kind == "csv":
        return csv_text(source, most_bytes)
    return json_text(source) if kind == "json" else html_text(source)


def answer(kind: str, data: bytes, most_pages: int, most_bytes: int) -> bytes:
    try:
        text, title, outline = _read(kind, data, most_pages, most_bytes)
    except UnreadableError as error:
        return b"-" + str(error).encode()
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # a broken file can make the parser raise anything
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        return f"-is no {kind.upper()} that can be read ({reason})".encode()
    made = text.encode("utf-8", "replace")
    if len(made) > most_bytes:
        return f"-is {kind.upper()} with more than {most_bytes} bytes of text".encode()
    return b"+" + json.dumps([title, outline]).encode() + b"\n" + made


def main() -> int:
    kind, most_pages, most_bytes, memory_bytes, seconds = sys.argv[1:]
    limit_resources(int(memory_bytes), int(seconds))
    data = sys.stdin.buffer.read()
    try:
        made = answer(kind, data, int(most_pages), int(most_bytes))
    except ImportError:
        return NOT_INSTALLED
    sys.stdout.buffer.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
