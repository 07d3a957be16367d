"""Traces and spans read from a server, and what to do where it has none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from llamastack.api.pagination import Page, all_listed
from llamastack.api.telemetry import Span, SpanStatus, TraceSummary
from llamastack.provider import NotFoundError, NotSupportedError
from llamastack.provider.commands import CliError, CommandOutput

if TYPE_CHECKING:
    from llamastack import LlamaStackClient

__all__ = ["LARGEST_PAGE", "explained", "listed", "spans_of", "trace_named"]

_T = TypeVar("_T")
LARGEST_PAGE = 1000
_MOST_SPANS = 100_000
_MOST_SEARCHED = 10_000
_SHORTEST_PART = 4
_SHOWN_CANDIDATES = 5
_WHAT_TO_ADD = """\
traces need a telemetry provider that keeps them. Add it to the run config, and start the server again:
providers:
  telemetry:
  - provider_id: traces
    provider_type: meta-reference
(pip install 'llamastack-provider-meta-reference[telemetry]')"""


@asynccontextmanager
async def explained(client: LlamaStackClient) -> AsyncIterator[None]:
    """Errors of a server that keeps no traces become a CliError that says what to add to its run config."""
    try:
        yield
    except NotSupportedError as error:
        raise CliError(f"{error.message}; {_WHAT_TO_ADD}") from error
    except NotFoundError as error:
        if await _has_telemetry(client):
            raise
        raise CliError(f"the server has no telemetry API; {_WHAT_TO_ADD}") from error


async def _has_telemetry(client: LlamaStackClient) -> bool:
    try:
        await client.telemetry.list_traces(limit=1)
    except NotFoundError:
        return False
    except NotSupportedError:
        return True
    return True


async def listed(
    client: LlamaStackClient,
    most: int,
    *,
    since: datetime | None = None,
    status: SpanStatus | None = None,
    name: str | None = None,
) -> list[TraceSummary]:
    """The newest traces, `most` of them at most."""
    return await _first(
        client.telemetry.list_traces,
        most,
        **{
            key: value
            for key, value in (("since", since), ("status", status), ("name", name))
            if value is not None  # a provider may not know the filter
        },
    )


async def spans_of(client: LlamaStackClient, trace_id: str, output: CommandOutput) -> list[Span]:
    """The spans of a trace. Raises NotFoundError for an unknown id."""
    found = await _first(client.telemetry.list_spans, _MOST_SPANS + 1, trace_id=trace_id)
    if not found:
        raise NotFoundError(f"no trace '{trace_id}' is known", param="trace_id")
    if len(found) > _MOST_SPANS:
        output.say(f"warning: trace {trace_id} has more than {_MOST_SPANS:,} spans; the others are left out", err=True)
    return found[:_MOST_SPANS]


async def _first(method: Callable[..., Awaitable[Page[_T]]], most: int, **arguments: object) -> list[_T]:
    found: list[_T] = []
    async for entry in all_listed(method, limit=min(most, LARGEST_PAGE), **arguments):
        found.append(entry)
        if len(found) == most:
            break
    return found


async def trace_named(client: LlamaStackClient, text: str, output: CommandOutput) -> list[Span]:
    """The spans of the trace with this id, or of the only one whose id ends or begins so.

    Raises CliError if there is none, or several.
    """
    try:
        return await spans_of(client, text, output)
    except NotFoundError as error:
        traces = await listed(client, _MOST_SEARCHED)  # raises it again if the server has no telemetry
        if len(text) < _SHORTEST_PART:
            raise CliError(
                f"no trace '{text}' is known; the end or the beginning of an id needs {_SHORTEST_PART} characters"
            ) from error
        ids = _with_part(text.lower(), [trace.trace_id for trace in traces])
        if not ids:
            where = f" among the newest {len(traces):,} traces" if len(traces) == _MOST_SEARCHED else ""
            raise CliError(
                f"no trace{where} has an id that ends or begins with '{text}'; `llamastack traces list` lists them"
            ) from error
        if len(ids) > 1:
            more = f" and {len(ids) - _SHOWN_CANDIDATES:,} more" if len(ids) > _SHOWN_CANDIDATES else ""
            shown = ", ".join(ids[:_SHOWN_CANDIDATES])
            raise CliError(f"the ids of {len(ids):,} traces end or begin with '{text}': {shown}{more}") from error
    return await spans_of(client, ids[0], output)


def _with_part(part: str, ids: Sequence[str]) -> list[str]:
    """Those that end so; if there are none, those that begin so."""
    return [each for each in ids if each.lower().endswith(part)] or [
        each for each in ids if each.lower().startswith(part)
    ]
