"""Multipart forms. Files are kept on disk, so that an upload takes little memory and never blocks the event loop."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive, Scope

from llamastack.api.definition import MethodDefinition
from llamastack.api.files import OCTETS, File, is_media_type
from llamastack.provider.errors import InvalidRequestError, RequestTooLargeError
from llamastack_server.element_limit import refuse_more_elements
from llamastack_server.requests import add_once, header_of, json_value
from llamastack_server.scope_state import state_of

_BLOCK = 64 * 2**10
_MOST_TEXT = 2**20  # bytes of all fields of a form that are no files
_MULTIPART = "multipart/form-data"


class _Parser(MultiPartParser):
    """starlette's parser with a limit for all texts together, the current field, and whether the form has ended."""

    spool_max_size = _BLOCK

    complete = False
    text_bytes = 0

    @property
    def field(self) -> str | None:
        return self._current_part.field_name or None

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self.text_bytes += end - start
            if self.text_bytes > _MOST_TEXT:
                raise MultiPartException(f"the texts of the form have more than {_MOST_TEXT} bytes")
        super().on_part_data(data, start, end)

    def on_end(self) -> None:
        self.complete = True

    def close_files(self) -> None:
        """Close files whose part did not end."""
        for file in self._files_to_close_on_error:
            file.close()


async def _parsed(headers: Headers, blocks: AsyncIterator[bytes], most: int) -> FormData:
    parser = _Parser(headers, blocks, max_files=most, max_fields=most, max_part_size=_MOST_TEXT)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        if parser.text_bytes > _MOST_TEXT:
            raise RequestTooLargeError(f"{parser.field}: {error}") from None
        many = " (server.max_upload_parts)" if str(error).startswith("Too many") else ""
        raise InvalidRequestError(f"the form cannot be read: {error}{many}", param=parser.field) from None
    if not parser.complete:
        parser.close_files()
        raise InvalidRequestError("the form ends before its last boundary", param=parser.field)
    return form


class FormReader:
    """Reads the arguments of one method from a form."""

    def __init__(self, method: MethodDefinition) -> None:
        self._method = method

    @asynccontextmanager
    async def read(self, scope: Scope, receive: Receive) -> AsyncIterator[dict[str, Any]]:
        """The arguments in the form. Files become `File`, which can be read until the context ends.

        Raises InvalidRequestError naming the field, RequestTooLargeError, ServerBusyError.
        """
        content_type = header_of(scope, b"content-type") or ""
        if content_type.partition(";")[0].strip().lower() != _MULTIPART:
            files = ", ".join(f"'{name}'" for name in sorted(self._method.file_parameters))
            raise InvalidRequestError(f"the body must be {_MULTIPART}, with a file as {files}")
        limits = state_of(scope).limits
        async with limits.uploads.streamed(scope, receive) as blocks:
            form = await _parsed(Headers(scope=scope), blocks, limits.max_upload_parts)
            try:
                yield self._arguments(form, limits.max_body_elements)
            finally:
                with anyio.CancelScope(shield=True):
                    await form.close()

    def _arguments(self, form: FormData, max_elements: int) -> dict[str, Any]:
        given: dict[str, Any] = {}
        method = self._method
        for name, part in form.multi_items():
            value: object = part
            if isinstance(part, UploadFile):
                if name in method.parameters and name not in method.file_parameters:
                    raise InvalidRequestError(f"{name}: is not a file; send it without a filename", param=name)
                value = _file_of(part)
            elif name in method.file_parameters:
                raise InvalidRequestError(f"{name}: is a file; its part needs a filename", param=name)
            elif name in method.json_parameters:
                refuse_more_elements(part.encode(), max_elements)
                value = json_value(part.encode(), f"'{name}'", name)
            if name in method.list_parameters and name not in method.json_parameters:
                given.setdefault(name, []).append(value)
            else:
                add_once(given, {name: value})
        return given


def _file_of(part: UploadFile) -> File:
    media_type = part.content_type or OCTETS
    # Some clients send a whole path; only its last part is a name.
    name = re.split(r"[/\\]", part.filename or "")[-1]
    return File(
        _blocks_of(part),
        filename="".join(character for character in name if character.isprintable()) or None,
        media_type=media_type if is_media_type(media_type) else OCTETS,
        size=part.size,
    )


async def _blocks_of(part: UploadFile) -> AsyncIterator[bytes]:
    while block := await part.read(_BLOCK):
        yield block
