"""Documents to chunks: their text, fetched where it is a URL, within limits, cut into pieces of tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import anyio.from_thread
import anyio.to_thread
import httpx

from llamastack.api.memory import MemoryBankDocument
from llamastack.http.answer_limits import AnswerLimits
from llamastack.provider import InvalidRequestError, ProviderUnavailableError
from llamastack_adapters.http_client import http_client
from llamastack_memory_kit.chunking import Chunker
from llamastack_memory_kit.documents import ExtractionLimits, ReadDocument, read_document
from llamastack_memory_kit.prefixes import Prefixes
from llamastack_memory_kit.records import ChunkSize, StoredChunk
from llamastack_memory_kit.settings import DocumentSettings

_MARGIN_BYTES = 2**20  # lets a document over the limit be reported as too large


class DocumentReader:
    """Reads and cuts documents for one provider."""

    def __init__(self, settings: DocumentSettings, provider_id: str) -> None:
        """Raises ValueError if the tokenizer file cannot be read."""
        self._settings = settings
        self._provider_id = provider_id
        self._chunker = Chunker(settings.tokenizer)
        self._http: httpx.AsyncClient | None = None

    def open(self) -> None:
        """Make the client that fetches URLs; safe to call twice."""
        if self._http is None:
            limits = AnswerLimits(response_bytes=self._settings.max_document_bytes + _MARGIN_BYTES)
            self._http = http_client(timeout=self._settings.fetch_timeout, answer_limits=limits)

    async def aclose(self) -> None:
        """Close the client; safe to call twice, and without `open`."""
        client, self._http = self._http, None
        if client is not None:
            await client.aclose()

    async def chunks(self, documents: Sequence[MemoryBankDocument], size: ChunkSize, first: int) -> list[StoredChunk]:
        """The chunks of all documents, in order, without vectors.

        first: the place of `documents[0]` in the caller's list, for errors.

        Raises InvalidRequestError, with `param` `documents[i]...`, for a duplicate id and for content that is not text,
        is too large, or cannot be fetched.
        """
        self.check_ids(documents, first)
        chunks: list[StoredChunk] = []
        for place, document in enumerate(documents, first):
            read = await self._read(document, f"documents[{place}].content")
            cut = await anyio.to_thread.run_sync(self._cut, document, read, size)
            if len(chunks) + len(cut) > self._settings.max_insert_chunks:
                raise self._refused(
                    f"documents[{place}]",
                    f"an insert may have at most {self._settings.max_insert_chunks} chunks; send fewer or shorter "
                    "documents in one call",
                )
            chunks += cut
        return chunks

    def _cut(self, document: MemoryBankDocument, read: ReadDocument, size: ChunkSize) -> list[StoredChunk]:
        """For a worker thread: a long document keeps the CPU busy."""
        metadata = copy.deepcopy(document.metadata)  # the caller may change its own
        prefixes = Prefixes(self._settings.chunk_prefix, read, metadata, size.size, self._chunker.count)
        room = size.size - prefixes.tokens  # the model reads the prefix, too
        overlap = min(size.overlap, room - 1)
        pieces = self._chunker.split(read.text, room, overlap, anyio.from_thread.check_cancelled)
        return [
            StoredChunk(
                document.document_id,
                piece.text,
                piece.token_count,
                metadata,
                index,
                prefix=prefixes.before(piece.start),
            )
            for index, piece in enumerate(pieces)
        ]

    def check_ids(self, documents: Sequence[MemoryBankDocument], first: int = 0) -> None:
        """Raises InvalidRequestError for an id that is there twice. first: the place of `documents[0]`, for errors."""
        places: dict[str, int] = {}
        for place, document in enumerate(documents, first):
            earlier = places.setdefault(document.document_id, place)
            if earlier != place:
                raise self._refused(
                    f"documents[{place}].document_id",
                    f"'{document.document_id}' is also the id of documents[{earlier}]",
                )

    async def _read(self, document: MemoryBankDocument, param: str) -> ReadDocument:
        if self._http is None:
            raise ProviderUnavailableError("the provider is not started", provider_id=self._provider_id)
        most = self._settings.max_document_bytes
        read = await read_document(
            document.content,
            self._http,
            mime_type=document.mime_type,
            max_bytes=most,
            allow_private=self._settings.allow_private_urls,
            param=param,
            fetch_timeout_s=self._settings.fetch_timeout,
            limits=ExtractionLimits(seconds=self._settings.extraction_timeout, pages=self._settings.max_document_pages),
        )
        try:
            size = len(await anyio.to_thread.run_sync(read.text.encode))  # a large text takes some time
        except UnicodeEncodeError:
            raise self._refused(param, "is not valid Unicode") from None
        if size > most:
            raise self._refused(param, f"is larger than {most} bytes")
        return read

    def _refused(self, param: str, why: str) -> InvalidRequestError:
        return InvalidRequestError(f"{param}: {why}", param=param, provider_id=self._provider_id)
