"""Files that go into a call or come out of one, block by block."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import anyio
from pydantic_core import core_schema

OCTETS = "application/octet-stream"
"""The media type of bytes whose kind is unknown."""
_BLOCK = 64 * 2**10
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"{_WORD}/{_WORD}(\s*;[\x20-\x7e]*)?")


def is_media_type(text: str) -> bool:
    """Whether it is of the form `type/subtype`, parameters allowed (RFC 9110, section 8.3.1)."""
    return _MEDIA_TYPE.fullmatch(text) is not None


class File:
    """The content of a file, its name and its media type.

    ```python
    await client.files.upload_file(store="docs", file=await File.from_path("report.pdf", media_type="application/pdf"))
    async with await client.files.download_file(store="docs", file_id="f1") as file:
        async for block in file:
            ...
    ```

    content: all bytes, or an iterator of blocks, which can be read once. filename: without a folder; None if it has no
    name. size: in bytes; None if it is unknown before reading. media_type: as in `audio/wav`.

    The receiver of a file closes it or reads it to its end. Raises ValueError for an invalid media type.
    """

    def __init__(
        self,
        content: bytes | AsyncIterator[bytes],
        *,
        filename: str | None = None,
        media_type: str = OCTETS,
        size: int | None = None,
    ) -> None:
        if not is_media_type(media_type):
            raise ValueError(f"{media_type!r} is no media type; it is of the form 'type/subtype'")
        self.content = content
        self.filename = filename
        self.media_type = media_type
        self.size = len(content) if isinstance(content, bytes) else size

    @classmethod
    async def from_path(cls, path: str | Path, *, media_type: str = OCTETS) -> Self:
        """A file of this machine. It is opened when it is read. Raises OSError."""
        found = anyio.Path(path)
        return cls(_blocks_of(found), filename=found.name, media_type=media_type, size=(await found.stat()).st_size)

    def with_content(self, content: AsyncIterator[bytes]) -> File:
        """The same file, its blocks read through `content`."""
        return File(content, filename=self.filename, media_type=self.media_type, size=self.size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self.content, bytes):
            if self.content:
                yield self.content
            return
        try:
            async for block in self.content:
                yield block
        finally:
            await self.aclose()

    async def read(self) -> bytes:
        """All of it, in memory."""
        return self.content if isinstance(self.content, bytes) else b"".join([block async for block in self])

    async def aclose(self) -> None:
        """Let go of what the blocks come from; safe to call twice."""
        close = getattr(self.content, "aclose", None)
        if close is None:
            return
        with anyio.CancelScope(shield=True):
            try:
                await close()
            except RuntimeError as error:
                # Another task reads it, such as the one that sends it; what ends that task ends the reading.
                if "already running" not in str(error):
                    raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<File {self.filename!r} {self.media_type} size={self.size}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, object]:
        return {"type": "string", "format": "binary", "contentMediaType": OCTETS}


async def _blocks_of(path: anyio.Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as opened:
        while block := await opened.read(_BLOCK):
            yield block
