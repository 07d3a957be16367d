"""The conformance suite for vector and for keyword banks in a file. Other tests embed by the real model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llamastack_conformance import MemoryConformance

_VECTOR: Mapping[str, Any] = {
    "identifier": "notes",
    "type": "vector",
    "embedding_model": "hashed-words",
    "chunk_size_in_tokens": 64,
}
_KEYWORD: Mapping[str, Any] = {"identifier": "words", "type": "keyword"}
_OTHERS: Sequence[Mapping[str, Any]] = (
    {"identifier": "keys", "type": "keyvalue"},
    {"identifier": "facts", "type": "graph"},
)


class _Conformance(MemoryConformance):
    provider_type = "meta-reference"
    objects: ClassVar[Sequence[Mapping[str, Any]]]

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        folder: Path = tmp_path_factory.mktemp("meta-reference")
        config = {"path": str(folder / "memory.sqlite")}
        return {
            "providers": {
                "inference": [{"provider_id": "embed", "provider_type": "test-embeddings"}],
                "memory": [{"provider_id": "docs", "provider_type": cls.provider_type, "config": config}],
            },
            "x-conformance": {"objects": [*cls.objects], "second": {"path": str(folder / "second.sqlite")}},
        }


class TestVectorConformance(_Conformance):
    objects = (_VECTOR, _KEYWORD, *_OTHERS)


class TestKeywordConformance(_Conformance):
    objects = (_KEYWORD, _VECTOR, *_OTHERS)
