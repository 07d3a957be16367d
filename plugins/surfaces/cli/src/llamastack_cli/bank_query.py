"""`llamastack memory-banks query`: find chunks in a memory bank."""

from __future__ import annotations

import json
import sys
from shutil import get_terminal_size
from typing import Any

import click

from llamastack.api.common import text_of
from llamastack.api.memory import QueryDocumentsResponse
from llamastack.provider.control_characters import one_line
from llamastack_cli.output import say, show_json, show_table
from llamastack_cli.server_connection import Server, server_options
from llamastack_cli.text_given import text_given

_HEADERS = ("SCORE", "DOCUMENT", "TEXT")
_LEAST_WIDTH = 20
_GAP = 3  # blanks and lines between two columns of a table


def _filters(ctx: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        filters = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"is not JSON: {error}", ctx, parameter) from None
    if not isinstance(filters, dict):
        raise click.BadParameter("must be a JSON object", ctx, parameter)
    return filters


@click.command()
@click.argument("bank")
@click.argument("text")
@click.option("--max-chunks", type=click.IntRange(min=1), help="Most chunks; by default 3.")
@click.option(
    "--mode",
    type=click.Choice(["vector", "keyword", "hybrid"]),
    help="Search by meaning, by words, or both; by default as the bank does.",
)
@click.option(
    "--filters",
    metavar="JSON",
    callback=_filters,
    help='Which documents, by their metadata: {"type": "eq", "key": "year", "value": 2024}.',
)
@click.option("--score-threshold", type=float, help="The least score.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Most tokens of all chunks together.")
@click.option("--rerank", metavar="MODEL", help="Chat model that judges the chunks and sorts them.")
@click.option("--json", "as_json", is_flag=True, help="Print the reply as JSON.")
@server_options
def query(
    server: Server,
    bank: str,
    text: str,
    max_chunks: int | None,
    mode: str | None,
    filters: dict[str, Any] | None,
    score_threshold: float | None,
    max_tokens: int | None,
    rerank: str | None,
    as_json: bool,
) -> None:
    """Find the chunks that fit TEXT best in a memory bank; - reads the text from stdin.

    On a terminal, the text of a chunk is cut to the width of the terminal.
    """
    given = {
        "max_chunks": max_chunks,
        "mode": mode,
        "filters": filters,
        "score_threshold": score_threshold,
        "max_tokens_in_context": max_tokens,
        "rerank": None if rerank is None else {"model": rerank},
    }
    params = {name: value for name, value in given.items() if value is not None}
    asked = text_given([text], "query")
    found = server.run(lambda client: client.memory.query_documents(bank, asked, params or None))
    if as_json:
        show_json(found.to_wire())
    elif found.chunks:
        _show(found)
    else:
        say(f"nothing is found in memory bank '{bank}'", err=True)


def _show(found: QueryDocumentsResponse) -> None:
    rows = [
        (f"{score:.4g}", one_line(chunk.document_id), one_line(" ".join(text_of(chunk.content).split())))
        for chunk, score in zip(found.chunks, found.scores, strict=True)
    ]
    if sys.stdout.isatty():
        from rich.text import Text

        columns = list(zip(_HEADERS, *rows, strict=True))[:-1]
        taken = sum(max(Text(cell).cell_len for cell in column) + _GAP for column in columns)
        width = max(_LEAST_WIDTH, get_terminal_size().columns - taken)
        rows = [(score, name, _cut(text, width)) for score, name, text in rows]
    show_table(_HEADERS, rows)


def _cut(text: str, width: int) -> str:
    from rich.text import Text

    cut = Text(text)
    cut.truncate(width, overflow="ellipsis")
    return cut.plain
