"""Multipart forms as a client sends them (RFC 7578), block by block."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable

from llamastack.api.files import File

_ESCAPED = {ord('"'): "%22", ord("\r"): "%0D", ord("\n"): "%0A"}  # as browsers do it


class Form:
    """The body of a request, as an iterator of blocks.

    fields: texts, JSON as bytes, and files. A file that can be read once makes a form that can be sent once.
    """

    def __init__(self, fields: Iterable[tuple[str, str | bytes | File]]) -> None:
        self._boundary = secrets.token_hex(16)
        self._parts = [(self._head(name, value), value) for name, value in fields]
        self._end = f"--{self._boundary}--\r\n".encode()

    def _head(self, name: str, value: str | bytes | File) -> bytes:
        lines = [f"--{self._boundary}", f'Content-Disposition: form-data; name="{name.translate(_ESCAPED)}"']
        if isinstance(value, File):
            lines[-1] += f'; filename="{(value.filename or "").translate(_ESCAPED)}"'
            lines.append(f"Content-Type: {value.media_type}")
        elif isinstance(value, bytes):
            lines.append("Content-Type: application/json")
        return "\r\n".join([*lines, "", ""]).encode()

    @property
    def repeatable(self) -> bool:
        """Whether the form can be sent again."""
        return all(isinstance(value.content, bytes) for _, value in self._parts if isinstance(value, File))

    @property
    def headers(self) -> dict[str, str]:
        made = {"Content-Type": f"multipart/form-data; boundary={self._boundary}"}
        size = len(self._end)
        for head, value in self._parts:
            of_value = value.size if isinstance(value, File) else len(_encoded(value))
            if of_value is None:
                return made
            size += len(head) + of_value + 2
        return {**made, "Content-Length": str(size)}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for head, value in self._parts:
            yield head
            if isinstance(value, File):
                async for block in value:
                    yield block
            else:
                yield _encoded(value)
            yield b"\r\n"
        yield self._end

    async def aclose(self) -> None:
        """Release the files."""
        for _, value in self._parts:
            if isinstance(value, File):
                await value.aclose()


def _encoded(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
