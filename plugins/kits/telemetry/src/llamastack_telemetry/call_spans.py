"""Makes spans of what is known about a call of a provider and about a request over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from llamastack.provider.hookspecs import FinishedRequest
from llamastack.provider.provider_call import CallEvent, ProviderCall
from llamastack.provider.redaction import without_known_secrets
from llamastack_telemetry import conventions as names
from llamastack_telemetry.prices import Cost
from llamastack_telemetry.replies import attributes_of
from llamastack_telemetry.spans import Attributes, FinishedSpan

LONGEST_PARSED_BODY = 16_384
"""Bytes. Of longer requests in OpenAI's form the parameters are not in the span: parsing them would cost too much."""
_LONGEST_TEXT = 1024
_MOST_STOP_SEQUENCES = 16
_NUMBERS = (
    ("max_tokens", names.REQUEST_MAX_TOKENS),
    ("max_completion_tokens", names.REQUEST_MAX_TOKENS),
    ("temperature", names.REQUEST_TEMPERATURE),
    ("top_p", names.REQUEST_TOP_P),
    ("seed", names.REQUEST_SEED),
)


_MOST_KINDS = 1000


def span_of_call(event: CallEvent, end_ns: int, cost: Cost | None) -> FinishedSpan:
    """The span of a call that has ended; its names are those of the GenAI conventions where they have some.

    end_ns: nanoseconds since 1970. cost: None if it is not known.
    """
    own_id = event.traceparent or ""
    call = event.call
    name, kind, shared = _kind_of(
        event.api,
        event.method,
        event.identifier,
        event.provider_id,
        event.provider_type,
        call is not None and call.stream,
    )
    attributes: Attributes = {}
    if event.request_id:
        attributes[names.REQUEST_ID] = event.request_id
    if call is not None and (parameters := _parameters_of(call)):
        attributes |= _request_attributes(parameters)
    _add_results(attributes, event)
    if event.reply is not None:
        attributes |= attributes_of(event.reply)
    if cost is not None:
        attributes[names.COST] = float(cost.amount)
        attributes[names.COST_CURRENCY] = cost.currency
    return FinishedSpan(
        own_id[3:35],
        own_id[36:52],
        event.parent_span[36:52] if event.parent_span else None,
        name,
        kind,
        end_ns - int((event.duration_s or 0) * 1e9),
        end_ns,
        "error" if event.status == "error" else "unset" if event.status == "cancelled" else "ok",
        (event.error_message or "")[:_LONGEST_TEXT],
        attributes,
        [],
        shared,
    )


def _parameters_of(call: ProviderCall) -> object:
    if call.body is None:
        return call.request.get("sampling_params")
    # perf: llamastack-v1-sqlite. `/v1` has parsed them; what other callers send is parsed here.
    return None if len(call.body) > LONGEST_PARSED_BODY else call.request


@lru_cache(maxsize=_MOST_KINDS)
def _kind_of(
    api: str, method: str, identifier: str, provider_id: str, provider_type: str, stream: bool
) -> tuple[str, Literal["client", "internal"], Attributes]:
    """The name and the kind of a call's span, and what all such calls have in common. Nobody changes it."""
    operation = names.OPERATIONS.get((api, method))
    attributes: Attributes = {
        names.API: api,
        names.METHOD: method,
        names.PROVIDER_ID: provider_id,
        names.PROVIDER_TYPE: provider_type,
    }
    if stream:
        attributes[names.REQUEST_STREAM] = True
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
    given = parameters if isinstance(parameters, Mapping) else _native_parameters(parameters)
    for field, name in _NUMBERS:
        value = given.get(field)
        if isinstance(value, (int, float)) and value is not True and value is not False:
            found[name] = value
    stop = given.get("stop")
    if stop is None:
        return found
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    texts = [_shown(each) for each in stops[:_MOST_STOP_SEQUENCES] if isinstance(each, str)]
    if texts:
        found[names.REQUEST_STOP_SEQUENCES] = texts
    return found


def _shown(text: str) -> str:
    """What a client wrote, without the secrets that this process knows."""
    return without_known_secrets(text[: 2 * _LONGEST_TEXT])[:_LONGEST_TEXT]


def _native_parameters(sampling: object) -> Mapping[str, object]:
    """Of `SamplingParams`, whose temperature stands in its strategy where the client named one."""
    own: frozenset[str] = getattr(sampling, "model_fields_set", frozenset())
    found: dict[str, object] = {name: getattr(sampling, name, None) for name in own}
    strategy = found.get("strategy")
    for name in getattr(strategy, "model_fields_set", ()):
        found[name] = getattr(strategy, name, None)
    return found


def span_of_request(request: FinishedRequest, end_ns: int) -> FinishedSpan:
    """The span of a request over HTTP. end_ns: nanoseconds since 1970."""
    own_id, status = request.traceparent or "", request.status
    name, shared = _kind_of_request(request.method, request.route, status)
    return FinishedSpan(
        own_id[3:35],
        own_id[36:52],
        request.parent[36:52] if request.parent else None,
        name,
        "server",
        end_ns - int(request.duration_s * 1e9),
        end_ns,
        "error" if status >= 500 else "unset" if status >= 400 else "ok",
        f"HTTP status {status}" if status >= 500 else "",
        {
            # A path of no parameters is its route; another one holds what a client wrote.
            names.URL_PATH: request.path if request.path == request.route else _shown(request.path),
            names.REQUEST_ID: request.request_id,
        },
        [],
        shared,
    )


@lru_cache(maxsize=_MOST_KINDS)
def _kind_of_request(method: str, route: str | None, status: int) -> tuple[str, Attributes]:
    """The name of a request's span, and what all such requests have in common. Nobody changes it."""
    attributes: Attributes = {names.HTTP_METHOD: method, names.HTTP_STATUS: status}
    if route is not None:
        attributes[names.HTTP_ROUTE] = route
    if status >= 500:
        attributes[names.ERROR_TYPE] = str(status)
    elif status == 499:
        attributes[names.CANCELLED] = True
    return method if route is None else f"{method} {route}", attributes
