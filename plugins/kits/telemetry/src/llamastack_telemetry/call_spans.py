"""Makes spans of what is known about a call of a provider and about a request over HTTP, off the request's path."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from llamastack.provider.hookspecs import FinishedRequest
from llamastack.provider.provider_call import CallEvent, ProviderCall
from llamastack_telemetry import conventions as names
from llamastack_telemetry.content_capture import RawContent
from llamastack_telemetry.prices import Cost
from llamastack_telemetry.replies import attributes_of, kept_of
from llamastack_telemetry.spans import Attributes, FinishedSpan

LONGEST_PARSED_BODY = 16_384
"""Bytes. Of longer requests in OpenAI's form the parameters are not in the span: parsing them would cost too much."""
_LONGEST_TEXT = 1024
_MOST_STOP_SEQUENCES = 16
_NUMBERS = {
    "max_tokens": names.REQUEST_MAX_TOKENS,
    "max_completion_tokens": names.REQUEST_MAX_TOKENS,
    "temperature": names.REQUEST_TEMPERATURE,
    "top_p": names.REQUEST_TOP_P,
    "seed": names.REQUEST_SEED,
}
_PARAMETERS = (*_NUMBERS, "stop")


_CALL, _REPLY = (CallEvent._fields.index(name) for name in ("call", "reply"))
_MOST_KINDS = 1000


class Dropped(Enum):
    """Stands for content that there was no room for."""

    dropped = "dropped"


DROPPED: Final = Dropped.dropped


class FinishedCall(NamedTuple):
    """A call of a provider that has ended. It holds the parameters of the request, not its content.

    event: without its call. end_ns: nanoseconds since 1970. parameters: `sampling_params` of a native call, or those
    fields of a short request in OpenAI's form. cost: None if it is not known. said: what `replies.kept_of` gave.
    content: of the messages, in a stack that asks for it; DROPPED if there was no room for it.
    """

    event: CallEvent
    end_ns: int
    stream: bool
    parameters: object
    cost: Cost | None
    said: object
    content: RawContent | Dropped | None = None


def finished_call(event: CallEvent, end_ns: int, cost: Cost | None, *, with_body: bool) -> FinishedCall:
    """What the span of a call needs, without the content of the request, which would be kept in memory."""
    call = event.call
    if call is None:
        return FinishedCall(event, end_ns, False, None, cost, None)
    # perf: llamastack-v1-sqlite. `_replace` takes three times as long.
    kept: CallEvent = tuple.__new__(
        CallEvent, (*event[:_CALL], None, *event[_CALL + 1 : _REPLY], None, *event[_REPLY + 1 :])
    )
    said = None if event.reply is None else kept_of(event.reply, with_body=with_body)
    return FinishedCall(kept, end_ns, call.stream, _parameters_of(call), cost, said)


def _parameters_of(call: ProviderCall) -> object:
    if call.body is None:
        return call.request.get("sampling_params")
    if len(call.body) > LONGEST_PARSED_BODY:
        return None
    # perf: llamastack-v1-sqlite. `/v1` has parsed them; what other callers send is parsed here.
    request = call.request
    return {name: request[name] for name in _PARAMETERS if name in request} or None


def span_of_call(finished: FinishedCall) -> FinishedSpan:
    """The span of a call; its names are those of the GenAI conventions where they have some."""
    event = finished.event
    own = event.traceparent or ""
    name, kind, shared = _kind_of(event.api, event.method, event.identifier, event.provider_id, event.provider_type)
    attributes = shared.copy()
    if event.request_id:
        attributes[names.REQUEST_ID] = event.request_id
    if finished.stream:
        attributes[names.REQUEST_STREAM] = True
    if finished.parameters is not None:
        attributes |= _request_attributes(finished.parameters)
    _add_results(attributes, event)
    if finished.said is not None:
        attributes |= attributes_of(finished.said)
    if finished.cost is not None:
        attributes[names.COST] = float(finished.cost.amount)
        attributes[names.COST_CURRENCY] = finished.cost.currency
    return FinishedSpan(
        trace_id=own[3:35],
        span_id=own[36:52],
        parent_id=event.parent_span[36:52] if event.parent_span else None,
        name=name,
        kind=kind,
        start_ns=finished.end_ns - int((event.duration_s or 0) * 1e9),
        end_ns=finished.end_ns,
        status="error" if event.status == "error" else "unset" if event.status == "cancelled" else "ok",
        message=(event.error_message or "")[:_LONGEST_TEXT],
        attributes=attributes,
    )


@lru_cache(maxsize=_MOST_KINDS)
def _kind_of(
    api: str, method: str, identifier: str, provider_id: str, provider_type: str
) -> tuple[str, Literal["client", "internal"], Attributes]:
    """The name and the kind of a call's span, and what all such calls have in common. Nobody changes it."""
    operation = names.OPERATIONS.get((api, method))
    attributes: Attributes = {
        names.API: api,
        names.METHOD: method,
        names.PROVIDER_ID: provider_id,
        names.PROVIDER_TYPE: provider_type,
    }
    if operation is not None:
        attributes[names.OPERATION_NAME] = operation
        attributes[names.PROVIDER_NAME] = names.provider_name(provider_type)
    if identifier:
        attributes[names.OBJECT] = identifier
        if api == "inference":
            attributes[names.REQUEST_MODEL] = identifier
        elif operation == "retrieval":
            attributes[names.DATA_SOURCE_ID] = identifier
    name = f"{operation or f'{api}.{method}'} {identifier}".rstrip()
    return name, "internal" if operation is None else "client", attributes


def _add_results(attributes: Attributes, event: CallEvent) -> None:
    if event.first_piece_s is not None:
        attributes[names.TIME_TO_FIRST_CHUNK] = event.first_piece_s
    if event.input_tokens is not None:
        attributes[names.INPUT_TOKENS] = event.input_tokens
    if event.output_tokens is not None:
        attributes[names.OUTPUT_TOKENS] = event.output_tokens
    if event.cached_tokens is not None:
        attributes[names.CACHED_TOKENS] = event.cached_tokens
    if event.status == "error":
        attributes[names.ERROR_TYPE] = event.error_code or "internal_error"
    elif event.status == "cancelled":
        attributes[names.CANCELLED] = True


def _request_attributes(parameters: object) -> Attributes:
    found: Attributes = {}
    given = parameters if isinstance(parameters, dict) else _native_parameters(parameters)
    for field, value in given.items():
        name = _NUMBERS.get(field)
        if name is not None and isinstance(value, (int, float)) and value is not True and value is not False:
            found[name] = value
    stop = given.get("stop")
    if stop is None:
        return found
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    texts = [each[:_LONGEST_TEXT] for each in stops[:_MOST_STOP_SEQUENCES] if isinstance(each, str)]
    if texts:
        found[names.REQUEST_STOP_SEQUENCES] = texts
    return found


def _native_parameters(sampling: object) -> Mapping[str, object]:
    """Of `SamplingParams`, whose temperature stands in its strategy where the client named one."""
    own: frozenset[str] = getattr(sampling, "model_fields_set", frozenset())
    found: dict[str, object] = {name: getattr(sampling, name, None) for name in own}
    strategy = found.get("strategy")
    for name in getattr(strategy, "model_fields_set", ()):
        found[name] = getattr(strategy, name, None)
    return found


def span_of_request(request: FinishedRequest, end_ns: int) -> FinishedSpan:
    """The span of a request over HTTP."""
    own = request.traceparent or ""
    attributes: Attributes = {
        names.HTTP_METHOD: request.method,
        names.URL_PATH: request.path[:_LONGEST_TEXT],
        names.HTTP_STATUS: request.status,
        names.REQUEST_ID: request.request_id,
    }
    if request.route is not None:
        attributes[names.HTTP_ROUTE] = request.route
    if request.status >= 500:
        attributes[names.ERROR_TYPE] = str(request.status)
    elif request.status == 499:
        attributes[names.CANCELLED] = True
    return FinishedSpan(
        trace_id=own[3:35],
        span_id=own[36:52],
        parent_id=request.parent[36:52] if request.parent else None,
        name=f"{request.method} {request.route}" if request.route is not None else request.method,
        kind="server",
        start_ns=end_ns - int(request.duration_s * 1e9),
        end_ns=end_ns,
        status="error" if request.status >= 500 else "unset" if request.status >= 400 else "ok",
        message=f"HTTP status {request.status}" if request.status >= 500 else "",
        attributes=attributes,
    )
