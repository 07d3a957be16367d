"""`llamastack traces list|show|tail`."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from llamastack.api.telemetry import Span, SpanStatus, TraceSummary
from llamastack.provider.commands import CommandOutput
from llamastack_telemetry import trace_words as words
from llamastack_telemetry.span_drawing import Drawing, drawn
from llamastack_telemetry.span_forest import bounds
from llamastack_telemetry.trace_reading import explained, listed, trace_named
from llamastack_telemetry.trace_tail import Tail

if TYPE_CHECKING:
    from llamastack import LlamaStackClient

__all__ = ["list_traces", "show_trace", "tail_traces", "traces"]

_WIDTH_WITHOUT_TERMINAL = 100
_MOST_IN_TAIL, _MOST_EVENTS_IN_TAIL = 20, 3
_HEADERS = ("time", "trace", "name", "duration", "spans", "status", "tokens", "cost")
_OPTIONAL = ("tokens", "cost")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _moment(ctx: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """A moment: as long ago as `10m` says, or a date and time of RFC 3339."""
    if value is None:
        return None
    ago = re.fullmatch(r"(\d{1,9})([smhd])", value)
    moment = None
    with suppress(ValueError, OverflowError):
        if ago is not None:
            moment = datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        else:
            moment = datetime.fromisoformat(value)
    if moment is None or moment.tzinfo is None:
        raise click.BadParameter(
            f"'{value}' is neither like 90s, 10m, 2h, 7d nor like 2026-11-29T14:00:00Z, with a time zone",
            ctx,
            parameter,
        )
    return moment


def _text(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A word of the command line, which Python reads with surrogates in place of bytes that are not UTF-8."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        shown = (value or "").encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise click.BadParameter(f"'{shown}' is not valid UTF-8 text", context, parameter) from None
    return value


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_errors = click.option("--errors", is_flag=True, help="Only traces in which a span failed.")
_name = click.option(
    "--name", metavar="TEXT", callback=_text, help="Only traces with this text in the name of their root."
)


@click.group("traces", help="Show the traces of a running server.")
def traces() -> None:
    """The group; plugins add its commands."""


@click.command("list", help="List traces, the newest first. The end of an id is enough for `show`.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The most traces to list.")
@click.option(
    "--since",
    metavar="TIME",
    callback=_moment,
    help="Only traces that began then or later: 90s, 10m, 2h, 7d, or 2026-11-29T14:00:00Z.",
)
@_errors
@_name
@_as_json
@click.pass_obj
def list_traces(
    output: CommandOutput, limit: int, since: datetime | None, errors: bool, name: str | None, as_json: bool
) -> None:
    async def talk(client: LlamaStackClient) -> list[TraceSummary]:
        async with explained(client):
            return await listed(client, limit, since=since, status=SpanStatus.error if errors else None, name=name)

    found = output.call_server(talk)
    if as_json:
        output.json([trace.to_wire() for trace in found])
        return
    ids = words.short_ids([trace.trace_id for trace in found])
    rows = [_row(trace, short) for trace, short in zip(found, ids, strict=True)]
    shown = [place for place, head in enumerate(_HEADERS) if head not in _OPTIONAL or any(row[place] for row in rows)]
    output.table([_HEADERS[place] for place in shown], [[row[place] for place in shown] for row in rows])


def _row(trace: TraceSummary, short: str) -> tuple[str, ...]:
    """Its cells, in the order of `_HEADERS`."""
    return (
        words.time_of_day(trace.start_time),
        short,
        trace.name,
        words.length(trace),
        f"{trace.spans:,}",
        "-" if trace.status is None else trace.status.value,
        words.tokens(trace.input_tokens, trace.output_tokens),
        words.cost(trace.cost, trace.cost_currency or ""),
    )


@click.command(
    "show",
    help="Draw a trace: its spans as a tree, how long each took, and where in the trace's time it lies. ID is the "
    "trace's id, or its end, of at least 4 characters. Its beginning will do, too, if no other trace is as old.",
)
@click.argument("trace_id", metavar="ID", callback=_text)
@click.option("--depth", type=click.IntRange(1), metavar="N", help="Draw the first N levels of the tree only.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Draw every span and event: also spans that look the same, after 1,000, and events after 10 in a span.",
)
@click.option("--attributes", is_flag=True, help="Show the attributes below each span.")
@_as_json
@click.pass_obj
def show_trace(
    output: CommandOutput, trace_id: str, depth: int | None, everything: bool, attributes: bool, as_json: bool
) -> None:
    async def talk(client: LlamaStackClient) -> list[Span]:
        async with explained(client):
            return await trace_named(client, trace_id, output)

    spans = output.call_server(talk)
    if as_json:
        output.json([span.to_wire() for span in spans])
    elif everything:
        show(
            output,
            spans,
            _drawing(collapse=False, most_spans=None, most_events=None, depth=depth, attributes=attributes),
        )
    else:
        show(output, spans, _drawing(depth=depth, attributes=attributes))


def _drawing(
    *,
    collapse: bool = True,
    most_spans: int | None = 1000,
    most_events: int | None = 10,
    depth: int | None = None,
    attributes: bool = False,
) -> Drawing:
    """For stdout as it is."""
    return Drawing(
        width=shutil.get_terminal_size((_WIDTH_WITHOUT_TERMINAL, 24)).columns,
        encoding=sys.stdout.encoding or "utf-8",
        collapse=collapse,
        depth=depth,
        most_spans=most_spans,
        attributes=attributes,
        most_events=most_events,
    )


@click.command(
    "tail",
    help="Show traces as they finish, until Ctrl-C. A server that restarts does not end it. A trace that takes longer "
    "than an hour is not shown.",
)
@_errors
@_name
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object with the spans of a trace in each line.")
@click.pass_obj
def tail_traces(output: CommandOutput, errors: bool, name: str | None, as_json: bool) -> None:
    def show_one(spans: list[Span]) -> None:
        if as_json:
            value = {"trace_id": spans[0].trace_id, "spans": [span.to_wire() for span in spans]}
            output.json(value, in_one_line=True)
        else:
            show(output, spans, _drawing(most_spans=_MOST_IN_TAIL, most_events=_MOST_EVENTS_IN_TAIL))

    async def talk(client: LlamaStackClient) -> None:
        tail = Tail(client, output, show_one, errors=errors, name=name)
        async with explained(client):
            await tail.begin()
            await tail.run()

    output.call_server(talk)


def show(output: CommandOutput, spans: list[Span], drawing: Drawing) -> None:
    """Draw the spans of a trace, below a line about it."""
    output.styled([(words.cut(_about(spans, drawing), max(drawing.width, 20), drawing.signs.cut), "bold")])
    for line in drawn(spans, drawing):
        output.styled(line)


def _about(spans: list[Span], drawing: Drawing) -> str:
    start, end = bounds(spans)
    errors = sum(span.status is SpanStatus.error for span in spans)
    parts: Iterable[str] = (
        f"trace {drawing.text(spans[0].trace_id)}",
        words.local_time(start),
        words.duration((end - start).total_seconds()),
        _count(len(spans), "span"),
        _count(errors, "error") if errors else "",
    )
    return "  ".join(part for part in parts if part)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
