"""Makes documents of memory banks out of files, folders, URLs and stdin."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from llamastack.api.memory import MemoryBankDocument
from llamastack.provider.commands import WrongInputError

STDIN = "-"
_URL = re.compile(r"\s*(https?|data):", re.IGNORECASE)
_WEB = re.compile(r"https?://", re.IGNORECASE)
_TEXT_TYPE = re.compile(r"text/|application/(json|xml|yaml|x-ndjson)$|.*\+(json|xml)$")
_TYPES = mimetypes.MimeTypes()  # the standard library's own table, so that no file of the machine changes it
for _type, _suffix in (
    ("text/markdown", ".md"),
    ("text/markdown", ".markdown"),
    ("application/yaml", ".yaml"),
    ("application/yaml", ".yml"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", ".docx"),
):
    _TYPES.add_type(_type, _suffix)


@dataclass(frozen=True)
class Source:
    """Where a document comes from. file: as it was given, or found in a folder that was given."""

    file: str
    document_id: str

    def document(self, metadata: dict[str, Any]) -> MemoryBankDocument:
        """Read it. A URL is not read: the server's provider fetches it. Raises OSError."""
        if _WEB.match(self.file):
            return MemoryBankDocument(document_id=self.document_id, content=self.file, metadata=metadata)
        data = sys.stdin.buffer.read() if self.file == STDIN else Path(self.file).read_bytes()
        content, mime_type = content_of(data, self.document_id if self.file == STDIN else self.file)
        return MemoryBankDocument(document_id=self.document_id, content=content, mime_type=mime_type, metadata=metadata)


def content_of(data: bytes, name: str) -> tuple[str, str | None]:
    """The content of a document and its media type. Text is sent as text, other bytes as a `data:` URL.

    The type is guessed from the name. If a text has a name of another type, such as `.ts`, which is also a format of
    videos, no type is sent.
    """
    # A path is no URL: mimetypes would read a name such as `data:x` as one.
    guess, compressed = _TYPES.guess_type("./" + PurePath(name).name)
    mime_type = None if compressed else guess
    text = _text_of(data)
    if text is None or (mime_type == "application/pdf"):
        encoded = base64.b64encode(data).decode()
        return f"data:{mime_type or 'application/octet-stream'};base64,{encoded}", mime_type
    if mime_type is not None and not _TEXT_TYPE.match(mime_type):
        mime_type = None
    if _URL.match(text):  # the provider would fetch it
        encoded = base64.b64encode(text.encode()).decode()
        return f"data:{mime_type or 'text/plain'};charset=utf-8;base64,{encoded}", mime_type or "text/plain"
    return text, mime_type


def _text_of(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def sources_of(files: Sequence[str], *, recursive: bool, document_id: str | None) -> list[Source]:
    """The documents that the arguments name; a file that is named twice is there once.

    Raises WrongInputError for a folder without `recursive`, for stdin without an id or beside other files, and for an
    id with more than one file.
    """
    if STDIN in files and (document_id is None or len(files) > 1):
        raise WrongInputError("- (stdin) needs --id, and no other files beside it")
    found: dict[str, Source] = {}
    for file in files:
        for each in _files_of(file, recursive):
            source = Source(each, document_id or _id_of(each))
            found.setdefault(each if document_id else source.document_id, source)
    if document_id is not None and len(found) > 1:
        raise WrongInputError(f"--id is for one file, not for {len(found)}")
    return list(found.values())


def _files_of(file: str, recursive: bool) -> Iterator[str]:
    if file == STDIN or _WEB.match(file) or not os.path.isdir(file):
        yield file
        return
    if not recursive:
        raise WrongInputError(f"'{file}' is a folder; -r stores the files in it")
    for folder, folders, names in os.walk(file, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path


def _raise(error: OSError) -> None:
    raise WrongInputError(f"{error.filename}: {error.strerror}") from error


def _id_of(file: str) -> str:
    """The path with `/`, relative to the current folder if it is in there; a URL as it is."""
    if _WEB.match(file):
        return file
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return path.as_posix()


def metadata_of(pairs: Sequence[str]) -> dict[str, Any]:
    """The metadata of `KEY=VALUE` texts. A value that is JSON is read as JSON. Raises WrongInputError."""
    metadata: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not (key and sign):
            raise WrongInputError(f"--metadata: '{pair}' is not of the form KEY=VALUE")
        try:
            metadata[key] = json.loads(text, parse_constant=_no_number)
        except ValueError:
            metadata[key] = text
    return metadata


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
