"""The program that reads HTML and PDF files, in a separate process: a hostile file could use up all time and memory.

`extraction.py` starts it as a file; it imports nothing of llamastack. Arguments: the kind (`html` or `pdf`),
the most pages, the most bytes of text, the most bytes of memory, the most seconds of processor time. The document comes
from stdin, HTML as UTF-8. The answer goes to stdout: `+` and the text as UTF-8, or `-` and the error.
"""

from __future__ import annotations

import io
import sys
from typing import Any

NOT_INSTALLED = 3
"""The exit status if a package is missing."""
_LOCKED = "is an encrypted PDF; send it without a password"


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


def html_text(data: bytes) -> str:
    from inscriptis import get_text  # type: ignore[import-untyped]

    source = data.decode("utf-8")
    return str(get_text(source)).strip() if source.strip() else ""


def pdf_text(data: bytes, most_pages: int, most_bytes: int) -> str:
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
    return text


def _is_locked(reader: Any) -> bool:
    """Whether the PDF needs a password or a cipher that is not installed."""
    from pypdf.errors import DependencyError

    try:
        return bool(reader.is_encrypted) and not reader.decrypt("")
    except (DependencyError, NotImplementedError):
        return True


def answer(kind: str, data: bytes, most_pages: int, most_bytes: int) -> bytes:
    try:
        text = html_text(data) if kind == "html" else pdf_text(data, most_pages, most_bytes)
    except UnreadableError as error:
        return b"-" + str(error).encode()
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # a broken file can make the parser raise anything
        return f"-is no {kind.upper()} that can be read ({type(error).__name__})".encode()
    made = text.encode("utf-8", "replace")
    if len(made) > most_bytes:
        return f"-is {kind.upper()} with more than {most_bytes} bytes of text".encode()
    return b"+" + made


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
