"""`llamastack memory-banks insert`: files into a memory bank."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from llamastack.api.memory import MemoryBankDocument
from llamastack.provider.errors import (
    InvalidRequestError,
    NotSupportedError,
    RequestTooLargeError,
    UnsupportedMemoryBankError,
)
from llamastack_cli.bank_documents import Source, metadata_of, sources_of
from llamastack_cli.output import say, show_errors, show_json, to_cli_error
from llamastack_cli.server_connection import Server, server_options

if TYPE_CHECKING:
    from llamastack.client import LlamaStackClient

_LONGEST_INSERT_S = 3600.0  # the server cuts and embeds the documents before it answers
_BATCH = 32
_BATCH_BYTES = 8 * 2**20  # by default a server takes bodies of 32 MiB
_ABOUT_DOCUMENTS = (InvalidRequestError, NotSupportedError, RequestTooLargeError)


@dataclass(frozen=True)
class _Outcome:
    """What became of a document. status: `stored`, `failed`, or `not tried` if the command ended before."""

    document_id: str
    file: str
    status: str = "not tried"
    error: str | None = None


@click.command()
@click.argument("bank")
@click.argument("files", nargs=-1, required=True)
@click.option("--recursive", "-r", is_flag=True, help="Store the files in folders, too; without hidden ones.")
@click.option("--id", "document_id", metavar="ID", help="The document_id, for one file; by default the path or URL.")
@click.option(
    "--metadata", multiple=True, metavar="KEY=VALUE", help="Metadata of all documents; a value may be JSON. Repeatable."
)
@click.option("--ttl", type=click.IntRange(min=1), metavar="SECONDS", help="How long the documents can be found.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=_BATCH,
    show_default=True,
    help="Most documents in a call; a call is also ended at 8 MiB.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what became of each document as JSON.")
@server_options
def insert(
    server: Server,
    bank: str,
    files: tuple[str, ...],
    recursive: bool,
    document_id: str | None,
    metadata: tuple[str, ...],
    ttl: int | None,
    batch: int,
    as_json: bool,
) -> None:
    """Store FILES in a memory bank: files, URLs, which the server fetches, or - for stdin.

    The media type is guessed from the name. A document that is refused is reported, the others are stored, and the
    exit status is 1.
    """
    given = metadata_of(metadata)
    sources = sources_of(files, recursive=recursive, document_id=document_id)
    failure: Exception | None = None
    hidden = as_json or not sys.stderr.isatty()
    with click.progressbar(length=len(sources), label="storing", file=sys.stderr, hidden=hidden) as bar:
        run = _Insert(bank, sources, given, ttl, batch, bar.update)
        try:
            server.run(run.talk, timeout_s=_LONGEST_INSERT_S)
        except Exception as error:  # shown below, behind what was stored before
            if not any(outcome.status != "not tried" for outcome in run.outcomes):
                raise
            failure = error
    run.report(as_json)
    if failure is not None:
        raise to_cli_error(failure) from failure
    if any(outcome.status != "stored" for outcome in run.outcomes):
        sys.stdout.flush()
        raise click.exceptions.Exit(1)


class _Insert:
    """One run of the command. outcomes: what became of each of `sources`. progress: gets 1 for each that is done."""

    def __init__(
        self,
        bank: str,
        sources: Sequence[Source],
        metadata: dict[str, Any],
        ttl: int | None,
        batch: int,
        progress: Callable[[int], object],
    ) -> None:
        self.bank = bank
        self.sources = sources
        self.outcomes = [_Outcome(source.document_id, source.file) for source in sources]
        self._progress = progress
        self._metadata = metadata
        self._ttl = ttl
        self._batch = batch

    async def talk(self, client: LlamaStackClient) -> None:
        """Store all. Raises an error that is not about one document."""
        for batch in self._batches():
            try:
                await self._store(client, batch)
            except _ABOUT_DOCUMENTS as error:
                if isinstance(error, UnsupportedMemoryBankError):
                    raise
                if len(batch) == 1:
                    self._ended(batch[0][0], error.message)
                else:
                    await self._store_each(client, batch)

    async def _store_each(self, client: LlamaStackClient, batch: list[tuple[int, MemoryBankDocument]]) -> None:
        """A call stores all of its documents or none, so each gets a call of its own."""
        for place, document in batch:
            try:
                await self._store(client, [(place, document)])
            except _ABOUT_DOCUMENTS as error:
                self._ended(place, error.message)

    async def _store(self, client: LlamaStackClient, batch: list[tuple[int, MemoryBankDocument]]) -> None:
        await client.memory.insert_documents(self.bank, [document for _, document in batch], self._ttl)
        for place, _ in batch:
            self._ended(place)

    def _batches(self) -> Iterator[list[tuple[int, MemoryBankDocument]]]:
        """Documents with their places; a file that cannot be read is left out, and its outcome says why."""
        batch: list[tuple[int, MemoryBankDocument]] = []
        size = 0
        for place, source in enumerate(self.sources):
            try:
                document = source.document(self._metadata)
            except OSError as error:
                self._ended(place, error.strerror or str(error))
                continue
            length = len(document.model_dump_json())
            if batch and (len(batch) >= self._batch or size + length > _BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append((place, document))
            size += length
        if batch:
            yield batch

    def _ended(self, place: int, error: str | None = None) -> None:
        status = "stored" if error is None else "failed"
        self.outcomes[place] = replace(self.outcomes[place], status=status, error=error)
        self._progress(1)

    def report(self, as_json: bool) -> None:
        """Print what became of the documents."""
        if as_json:
            show_json([asdict(outcome) for outcome in self.outcomes])
            return
        show_errors(f"{outcome.file}: {outcome.error}" for outcome in self.outcomes if outcome.error is not None)
        stored = sum(outcome.status == "stored" for outcome in self.outcomes)
        say(f"stored {stored} of {len(self.outcomes)} documents in memory bank '{self.bank}'")
