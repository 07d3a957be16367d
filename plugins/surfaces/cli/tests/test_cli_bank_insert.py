"""`llamastack memory-banks insert` with a server that fails, and on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from llamastack.api.memory import MemoryBankDocument, MemoryChunk, QueryDocumentsResponse
from llamastack.provider.errors import LlamaStackError, ProviderUnavailableError, RequestTooLargeError
from llamastack_cli.group import cli
from llamastack_cli.server_connection import Server

FILES = ("a.txt", "b.txt", "c.txt")


class _Memory:
    """Stores documents until it fails at the document `bad`. calls: the ids of each call."""

    def __init__(self, bad: str, error: LlamaStackError) -> None:
        self.bad = bad
        self.error = error
        self.calls: list[list[str]] = []
        self.ttl: int | None = None

    async def insert_documents(self, bank: str, documents: list[MemoryBankDocument], ttl: int | None) -> None:
        self.calls.append([document.document_id for document in documents])
        self.ttl = ttl
        if self.bad in self.calls[-1]:
            raise self.error


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[_Memory], None]:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).write_text(name * 10)

    def use(memory: _Memory) -> None:
        def run(self: Server, talk: Callable[[object], Awaitable[object]], *, timeout_s: float = 600.0) -> object:
            return anyio.run(talk, SimpleNamespace(memory=memory))

        monkeypatch.setattr(Server, "run", run)

    return use


def insert(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["memory-banks", "insert", "kb", *FILES, *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_a_failure_of_the_server_ends_the_command_and_says_what_is_stored(serve: Callable[[_Memory], None]) -> None:
    memory = _Memory("b.txt", ProviderUnavailableError("the model is down"))
    serve(memory)
    status, out, err = insert("--batch", "1", "--json", "--ttl", "60")
    assert (status, err) == (1, "error: the model is down\n")
    assert [outcome["status"] for outcome in json.loads(out)] == ["stored", "not tried", "not tried"]
    assert (memory.calls, memory.ttl) == ([["a.txt"], ["b.txt"]], 60)
    status, out, err = insert("--batch", "1")
    assert (status, out) == (1, "stored 1 of 3 documents in memory bank 'kb'\n")
    assert err == "error: the model is down\n"


def test_nothing_is_printed_if_the_first_call_fails(serve: Callable[[_Memory], None]) -> None:
    serve(_Memory("a.txt", ProviderUnavailableError("the model is down")))
    assert insert("--json") == (1, "", "error: the model is down\n")


def test_a_document_that_is_too_large_is_left_out(serve: Callable[[_Memory], None]) -> None:
    memory = _Memory("b.txt", RequestTooLargeError("the body is too large"))
    serve(memory)
    status, out, err = insert()
    assert (status, out) == (1, "stored 2 of 3 documents in memory bank 'kb'\n")
    assert err == "error: b.txt: the body is too large\n"
    assert memory.calls == [[*FILES], ["a.txt"], ["b.txt"], ["c.txt"]]


def test_calls_end_at_a_size(serve: Callable[[_Memory], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamastack_cli.bank_insert._BATCH_BYTES", 300)
    memory = _Memory("none", RequestTooLargeError("never"))
    serve(memory)
    assert insert()[0] == 0
    assert memory.calls == [["a.txt", "b.txt"], ["c.txt"]]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_bar_shows_progress_on_a_terminal_only_without_json(
    serve: Callable[[_Memory], None], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    serve(_Memory("none", RequestTooLargeError("never")))
    streams = CliRunner()
    with streams.isolation() as (_, err, _):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        with pytest.raises(SystemExit) as ended:
            cli.main(["memory-banks", "insert", "kb", *FILES, *arguments])
        shown = err.getvalue().decode()
    assert ended.value.code == 0
    assert ("storing" in shown and "100%" in shown) == (not arguments)


def test_on_a_terminal_the_text_of_a_chunk_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = MemoryChunk(content="\u6f22\u5b57 boat " * 50, token_count=100, document_id="a.txt")
    found = QueryDocumentsResponse(chunks=[chunk], scores=[0.5])
    monkeypatch.setattr(Server, "run", lambda self, talk: found)
    monkeypatch.setenv("COLUMNS", "60")
    with CliRunner().isolation() as (out, _, _):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        with pytest.raises(SystemExit):
            cli.main(["memory-banks", "query", "kb", "boat"])
        lines = [line for line in out.getvalue().decode().splitlines() if "boat" in line]
    assert len(lines) == 1
    assert lines[0].rstrip().endswith("\u2026")
    assert cell_len(lines[0].rstrip()) <= 60
