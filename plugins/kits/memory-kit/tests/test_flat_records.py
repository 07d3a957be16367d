"""Banks and chunks as texts and numbers: what comes back is what was kept."""

from __future__ import annotations

import json
import re
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack.api.memory_banks import KeywordMemoryBank, VectorMemoryBank
from llamastack.http.lone_surrogates import encode_json
from llamastack.provider import BackendError
from llamastack_memory_kit import Bank, Insert, StoredChunk
from llamastack_memory_kit.flat_records import (
    FOREVER,
    bank_from_text,
    bank_to_text,
    chunk_from_fields,
    chunk_to_fields,
    collection_name,
)

VECTOR = VectorMemoryBank(identifier="Notes", embedding_model="m", chunk_size_in_tokens=64, overlap_size_in_tokens=0)


@pytest.mark.parametrize("bank", [Bank(VECTOR, 384), Bank(KeywordMemoryBank(identifier="words"))])
def test_a_bank_comes_back(bank: Bank) -> None:
    found = bank_from_text(bank_to_text(bank))
    assert found.dimension == bank.dimension
    assert found.has_definition(bank.definition)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"definition": {"type": "nonsense"}, "dimension": 1}', None])
def test_a_bank_that_someone_has_changed_is_a_failure_of_the_backend(text: str | None) -> None:
    with pytest.raises(BackendError, match="definition of a memory bank cannot be read"):
        bank_from_text(text)


@given(st.text(), st.text(), st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_a_chunk_comes_back(document_id: str, content: str, metadata: dict[str, object]) -> None:
    chunk = StoredChunk(document_id, content, 7, metadata, 3)  # type: ignore[arg-type]
    fields = chunk_to_fields(chunk, Insert([document_id], [chunk], 5, 1.0, None))
    assert chunk_from_fields(content, json.loads(json.dumps(fields))) == chunk
    assert all(isinstance(each, str | int | float) for each in fields.values())


def test_the_time_of_expiry_is_always_a_float() -> None:
    chunk = StoredChunk("d", "x", 1, {})
    for expires_at, kept in ((None, FOREVER), (9, 9.0), (9.5, 9.5)):
        fields = chunk_to_fields(chunk, Insert(["d"], [chunk], 5, 1.0, expires_at))
        assert (fields["expires_at"], type(fields["expires_at"])) == (kept, float)


@pytest.mark.parametrize("fields", [{}, {"document_id": "d", "token_count": "x", "chunk_index": 0, "metadata": "{}"}])
def test_a_chunk_that_someone_has_changed_is_a_failure_of_the_backend(fields: dict[str, object]) -> None:
    with pytest.raises(BackendError, match="a chunk in the backend cannot be read"):
        chunk_from_fields("x", fields)


@given(st.text(min_size=1, max_size=300))
def test_the_name_of_a_collection_is_plain(identifier: str) -> None:
    name = collection_name("llamastack-", identifier)
    assert re.fullmatch(r"llamastack-[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= len("llamastack-") + 73


def test_names_of_collections_differ() -> None:
    names = ["a", "A", "a/b", "a-b", "a b", "ä", "ü", "x" * 200, "x" * 201, "prefix", "prefix1"]
    assert len({collection_name("p-", name) for name in names}) == len(names)


def test_a_vector_has_a_json_text() -> None:
    assert encode_json({"vectors": [array("d", [1, 2.5])]}) == b'{"vectors":[[1.0,2.5]]}'
    with pytest.raises(ValueError, match="object has no JSON text"):
        encode_json({"x": object()})
