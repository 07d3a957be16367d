"""What is put before chunks when they are indexed: titles and headings."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack.api import MemoryBankDocument
from llamastack_memory_kit import Chunker, ChunkSize, DocumentSettings
from llamastack_memory_kit.document_chunks import DocumentReader
from llamastack_memory_kit.documents import ReadDocument
from llamastack_memory_kit.documents.outline import markdown_headings
from llamastack_memory_kit.prefixes import Prefixes
from llamastack_memory_kit.records import StoredChunk

pytestmark = pytest.mark.anyio

PAGE = """# Llamas

They graze.

## Care

### Feet

Trim them twice a year, and look for stones.

## Food

Hay and water.
"""


async def chunks(kind: Literal["none", "title", "headings"], size: int = 40, **metadata: Any) -> list[StoredChunk]:
    reader = DocumentReader(DocumentSettings(chunk_prefix=kind), "test")
    reader.open()
    try:
        document = MemoryBankDocument(document_id="d", content=PAGE, mime_type="text/markdown", metadata=metadata)
        return await reader.chunks([document], ChunkSize(size, 0), 0)
    finally:
        await reader.aclose()


async def test_without_a_prefix_the_content_is_indexed() -> None:
    assert [(chunk.prefix, chunk.indexed_text == chunk.content) for chunk in await chunks("none")] == [("", True)] * 1


async def test_titles() -> None:
    assert {chunk.prefix for chunk in await chunks("title", 12)} == {"Llamas"}
    (chunk, *_) = await chunks("title", 40, title=" Big  book ")
    assert chunk.indexed_text == f"Big book\n{chunk.content}"
    assert {chunk.prefix for chunk in await chunks("title", 40, title=7)} == {"Llamas"}


async def test_headings_above_a_chunk() -> None:
    found = {chunk.content: chunk.prefix for chunk in await chunks("headings", 20, title="Book")}
    assert all(content in PAGE for content in found)
    assert found == {
        "# Llamas\n\nThey graze.\n\n## Care\n\n### Feet\n\nTrim them twice": "Book",
        "a year, and look for stones.\n\n## Food\n\nHay and water.": "Book > Care > Feet",
    }


HEADINGS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.sampled_from(["hay", "wool", "x" * 30]), min_size=1, max_size=9)),
    max_size=8,
)


@given(headings=HEADINGS, size=st.integers(1, 60), title=st.text(max_size=40))
def test_the_model_is_not_overrun(headings: list[tuple[int, list[str]]], size: int, title: str) -> None:
    text = "\n\n".join(f"{'#' * level} {' '.join(words)}\n\nSome text. And more of it." for level, words in headings)
    chunker = Chunker()
    read = ReadDocument(text, headings=markdown_headings(text))
    prefixes = Prefixes("headings", read, {"title": title}, size, chunker.count)
    assert prefixes.tokens <= size // 4
    room = size - prefixes.tokens
    for piece in chunker.split(text, room, 0):
        prefix = prefixes.before(piece.start)
        assert prefix == " ".join(prefix.split())
        assert piece.token_count + chunker.count(prefix) <= size
