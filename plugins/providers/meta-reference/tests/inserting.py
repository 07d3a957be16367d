"""A program that inserts until it is killed, or until the disk is full. Arguments: the SQLite file, and `full`."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import anyio

from llamastack.api.inference import EmbeddingsResponse
from llamastack.api.memory import MemoryBankDocument
from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import Deps, ProviderUnavailableError
from llamastack_provider_meta_reference.memory.config import MemoryConfig
from llamastack_provider_meta_reference.memory.provider import MetaReferenceMemory, get_provider_impl


class _Model:
    async def embeddings(self, model: str, contents: list[str]) -> EmbeddingsResponse:
        vectors = [[float(text.lower().count(chr(97 + i))) for i in range(26)] for text in contents]
        return EmbeddingsResponse(embeddings=vectors)


async def _insert(memory: MetaReferenceMemory, call: object, text: str = "abc") -> None:
    documents = [
        MemoryBankDocument(document_id=f"{call}-{place}", content=text, metadata={"call": call}) for place in range(20)
    ]
    await memory.insert_documents("notes", documents)


async def _main() -> None:
    path = Path(sys.argv[1])
    memory = await get_provider_impl(MemoryConfig(path=path), Deps(provider_id="docs", apis={"inference": _Model()}))
    await memory.initialize()
    await memory.register_memory_bank(
        VectorMemoryBank(identifier="notes", embedding_model="made", chunk_size_in_tokens=50)
    )
    if sys.argv[2:] == ["full"]:
        await _fill(memory)
        return
    print("ready", flush=True)
    for call in range(100_000):
        await _insert(memory, call)
        print(call, flush=True)


async def _fill(memory: MetaReferenceMemory) -> None:
    await _insert(memory, "before")
    room, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, most))
    try:
        await _insert(memory, "full", "x " * 30_000)
    except ProviderUnavailableError as error:
        if "memory.sqlite" not in str(error):
            raise
    else:
        sys.exit("the insert was taken")
    assert len((await memory.query_documents("notes", "abc", {"max_chunks": 100})).chunks) == 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    await _insert(memory, "after")
    await memory.shutdown()


anyio.run(_main)
