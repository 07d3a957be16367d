"""`llamastack memory-banks insert` and `query` against a running server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import docx
import pytest
from click.testing import CliRunner, Result
from running_server import running_server

from llamastack_cli.bank_documents import content_of, metadata_of
from llamastack_cli.group import cli

# One process starts the server.
pytestmark = pytest.mark.xdist_group("cli_banks")

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff"
_numbers = count()

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    config = folder / "run.yaml"
    database = json.dumps(str(folder / "banks.db"))
    config.write_text(f"""\
providers:
  inference:
  - {{provider_id: small, provider_type: "remote::sample", config: {{models: [a]}}}}
  - {{provider_id: embed, provider_type: test-embeddings}}
  memory:
  - {{provider_id: docs, provider_type: sqlite-vec, config: {{path: {database}}}}}
""")
    with running_server(config, home=folder / "home") as server:
        yield server.url


@pytest.fixture
def call(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, ["memory-banks", *arguments], input=stdin, env={"LLAMASTACK_URL": url})

    return run


@pytest.fixture
def bank(call: Call) -> str:
    name = f"bank{next(_numbers)}"
    assert call("register", name, "--type", "keyword").exit_code == 0
    return name


def found_in(call: Call, bank: str, *arguments: str) -> list[str]:
    done = call("query", bank, *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return [chunk["document_id"] for chunk in json.loads(done.stdout)["chunks"]]


def test_files_are_stored_and_found(call: Call, bank: str, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "boats.md").write_text("# Boats\n\nA boat   floats.")
    (tmp_path / "notes" / ".hidden").write_text("a secret boat")
    (tmp_path / "cars.txt").write_text("A car drives.")
    done = call("insert", bank, "./cars.txt", "notes", "-r", "notes/boats.md", str(tmp_path / "cars.txt"))
    assert done.exit_code == 0, done.stderr
    assert (done.stdout, done.stderr) == (f"stored 2 of 2 documents in memory bank '{bank}'\n", "")
    assert found_in(call, bank, "boat") == ["notes/boats.md"]
    header, line = call("query", bank, "boat").stdout.splitlines()
    assert header.split() == ["SCORE", "DOCUMENT", "TEXT"]
    score, document_id, text = line.split(maxsplit=2)
    assert (float(score) > 0, document_id, text) == (True, "notes/boats.md", "# Boats A boat floats.")
    assert found_in(call, bank, "car") == ["cars.txt"]
    nothing = call("query", bank, "zeppelin")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert nothing.stderr == f"nothing is found in memory bank '{bank}'\n"


@pytest.mark.parametrize("batch", ["1", "2", "32"])
def test_a_refused_file_does_not_keep_out_the_others(call: Call, bank: str, tmp_path: Path, batch: str) -> None:
    (tmp_path / "a.txt").write_text("first boat")
    (tmp_path / "b.png").write_bytes(PNG)
    (tmp_path / "c.txt").write_text("second boat")
    files = ("a.txt", "b.png", "gone.txt", "c.txt")
    done = call("insert", bank, *files, "--batch", batch)
    assert done.exit_code == 1
    assert done.stdout == f"stored 2 of 4 documents in memory bank '{bank}'\n"
    refused, gone = done.stderr.splitlines()
    assert refused.startswith("error: b.png: ")
    assert gone == "error: gone.txt: No such file or directory"
    assert sorted(found_in(call, bank, "boat")) == ["a.txt", "c.txt"]
    shown = call("insert", bank, *files, "--batch", batch, "--json")
    assert (shown.exit_code, shown.stderr) == (1, "")
    outcomes = json.loads(shown.stdout)
    assert [(each["document_id"], each["file"], each["status"]) for each in outcomes] == [
        ("a.txt", "a.txt", "stored"),
        ("b.png", "b.png", "failed"),
        ("gone.txt", "gone.txt", "failed"),
        ("c.txt", "c.txt", "stored"),
    ]
    assert [each["error"] is None for each in outcomes] == [True, False, False, True]


def test_stdin_and_a_query_from_stdin(call: Call, bank: str) -> None:
    assert call("insert", bank, "-", "--id", "x.md", stdin="a boat on stdin").exit_code == 0
    done = call("query", bank, "-", "--json", stdin="boat\n")
    assert [chunk["document_id"] for chunk in json.loads(done.stdout)["chunks"]] == ["x.md"]


def test_metadata_and_params_of_queries(call: Call, bank: str, tmp_path: Path) -> None:
    for year in (2023, 2024, 2025):
        (tmp_path / f"{year}.txt").write_text("a boat of the year")
        assert call("insert", bank, f"{year}.txt", "--metadata", f"year={year}", "--metadata", "of=it").exit_code == 0
    newer = json.dumps({"type": "gte", "key": "year", "value": 2024})
    assert sorted(found_in(call, bank, "boat", "--filters", newer)) == ["2024.txt", "2025.txt"]
    assert len(found_in(call, bank, "boat", "--mode", "keyword", "--max-chunks", "1")) == 1
    assert len(found_in(call, bank, "boat", "--max-tokens", "5")) == 1
    assert found_in(call, bank, "boat", "--score-threshold", "1000") == []
    reply = json.loads(call("query", bank, "boat", "--filters", newer, "--json").stdout)
    assert reply["chunks"][0]["metadata"]["of"] == "it"
    assert reply["scored_by"] == "bm25"
    judged = call("query", bank, "boat", "--rerank", "nope")
    assert (judged.exit_code, "'nope'" in judged.stderr) == (1, True), judged.output


def test_docx_in_a_bank_that_is_searched_by_meaning_and_by_words(call: Call, bank: str, tmp_path: Path) -> None:
    vectors = f"{bank}v"
    fields = ("--embedding-model", "hashed-words", "--chunk-size-in-tokens", "50", "--provider-id", "docs")
    assert call("register", vectors, "--type", "vector", *fields).exit_code == 0
    document = docx.Document()
    document.add_paragraph("A boat floats on the lake.")
    document.save(str(tmp_path / "boat.docx"))
    assert call("insert", vectors, "boat.docx").exit_code == 0
    for mode in ("vector", "keyword", "hybrid"):
        done = call("query", vectors, "boat", "--mode", mode, "--json")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["chunks"][0]["content"] == "A boat floats on the lake."


def test_a_text_that_is_a_url_is_stored_as_it_is(call: Call, bank: str, tmp_path: Path) -> None:
    (tmp_path / "link.txt").write_text("http://127.0.0.1:1/boat")
    assert call("insert", bank, "link.txt").exit_code == 0
    assert found_in(call, bank, "boat") == ["link.txt"]


def test_the_server_fetches_urls(call: Call, bank: str) -> None:
    there = "http://127.0.0.1:1/boat.pdf"
    done = call("insert", bank, there)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: {there}: ")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["insert", "nope", "a.txt"], 1, "error: no memory bank 'nope' is served"),
        (["query", "nope", "x"], 1, "error: no memory bank 'nope' is served"),
        (["insert", "BANK", "."], 2, "error: '.' is a folder; -r stores the files in it"),
        (["insert", "BANK", "-"], 2, "error: - (stdin) needs --id"),
        (["insert", "BANK", "a.txt", "b.txt", "--id", "x"], 2, "error: --id is for one file, not for 2"),
        (
            ["insert", "BANK", "a.txt", "--metadata", "year"],
            2,
            "error: --metadata: 'year' is not of the form",
        ),
        (["insert", "BANK", "a.txt", "--ttl", "0"], 2, "error: Invalid value for '--ttl'"),
        (["query", "BANK", ""], 2, "error: the query is empty"),
        (["query", "BANK", "x", "--filters", "["], 2, "error: Invalid value for '--filters': is not JSON"),
        (["query", "BANK", "x", "--filters", "[]"], 2, "error: Invalid value for '--filters': must be a JSON object"),
        (["query", "BANK", "x", "--mode", "odd"], 2, "error: Invalid value for '--mode'"),
        (["query", "BANK", "x", "--mode", "vector"], 1, "mode"),
    ],
)
def test_what_is_refused(call: Call, bank: str, tmp_path: Path, arguments: list[str], status: int, says: str) -> None:
    (tmp_path / "a.txt").write_text("a boat")
    (tmp_path / "b.txt").write_text("a boat")
    done = call(*(bank if argument == "BANK" else argument for argument in arguments))
    assert done.exit_code == status
    assert says in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("data", "name", "mime_type", "is_text"),
    [
        (b"hi", "a.md", "text/markdown", True),
        (b"a: 1", "a.yml", "application/yaml", True),
        (b"let x = 1", "a.ts", None, True),
        (b"hi", "README", None, True),
        (b"%PDF-1.7", "a.PDF", "application/pdf", False),
        (b"PK\xff", "a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", False),
        (b"\x1f\x8b\xff", "a.txt.gz", None, False),
        (b"\xff\0", "data:b", None, False),
    ],
)
def test_the_type_comes_from_the_name(data: bytes, name: str, mime_type: str | None, is_text: bool) -> None:
    content, found = content_of(data, name)
    assert found == mime_type
    if is_text:
        assert content == data.decode()
    else:
        prefix = f"data:{mime_type or 'application/octet-stream'};base64,"
        assert content == prefix + base64.b64encode(data).decode()


def test_values_of_metadata() -> None:
    given = ["a=1", "b=true", "c=[1]", "d=x=y", "e=NaN", 'f="1"', "g="]
    assert metadata_of(given) == {"a": 1, "b": True, "c": [1], "d": "x=y", "e": "NaN", "f": "1", "g": ""}
