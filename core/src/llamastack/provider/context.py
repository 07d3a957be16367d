"""The context of a request: who makes it, its data for providers, its ids, and its deadline.

One ContextVar holds it for the time of the request, so it cannot reach another request. Providers read it with
`current_context()`; `Deps.request_data()` reads the provider data, validated by the model that the spec names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import pydantic_core
from pydantic import BaseModel, ValidationError

from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import explain_validation_error
from llamastack.provider.validation_paths import path_of

__all__ = ["PROVIDER_DATA_HEADER", "STACK_ITSELF", "Principal", "RequestContext"]
__all__ += ["current_context", "traceparent_from", "use_context", "use_provider_data"]

PROVIDER_DATA_HEADER = "X-LlamaStack-ProviderData"
"""The header that holds a client's data for providers, as JSON."""
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_TRACE = re.compile(r"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

ProviderData = Mapping[str, object] | str | None
"""A str is the header as it came, its bytes read as Latin-1, as HTTP has it."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The maker of a request.

    id: stands in error messages and may stand in logs; never a secret.
    attributes: what an authentication plugin knows beside it, such as groups. They are in no log.
    """

    id: str
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)


STACK_ITSELF = Principal("llamastack")
"""Makes the calls that belong to no request, such as those at a provider's start. No equal object replaces it."""


class ContextChanges(TypedDict, total=False):
    """The fields of `RequestContext`."""

    principal: Principal | None
    provider_data: ProviderData
    request_id: str | None
    traceparent: str | None
    deadline: float | None
    job: object


class RequestContext:
    """What belongs to one request. Nobody changes it; `use_context` puts another one in its place.

    principal: who makes the request; None if nobody was authenticated.
    request_id: the id in the log and in `X-Request-ID`.
    traceparent: of W3C Trace Context, valid: what a backend is sent. The client's, or that of the running span, where a
        plugin makes spans. None if there is neither.
    deadline: when calls of providers are cancelled, on the clock of `anyio.current_time()`.
    job: what `llamastack.provider.jobs` gives the method that runs as a job.
    """

    __slots__ = ("deadline", "job", "principal", "raw_provider_data", "request_id", "traceparent")

    def __init__(
        self,
        *,
        principal: Principal | None = None,
        provider_data: ProviderData = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        deadline: float | None = None,
        job: object = None,
    ) -> None:
        self.principal = principal
        self.raw_provider_data = provider_data
        """The data for providers as it came."""
        self.request_id = request_id
        self.traceparent = traceparent
        self.deadline = deadline
        self.job = job

    @property
    def provider_data(self) -> Mapping[str, object] | None:
        """The data; None without the header, or if it is not a JSON object. Never log it."""
        # A header is parsed when it is read: many providers need none.
        return _object_in(self.raw_provider_data) if isinstance(self.raw_provider_data, str) else self.raw_provider_data

    def in_span(self, traceparent: str) -> RequestContext:
        """The same context, inside a span."""
        return RequestContext(
            principal=self.principal,
            provider_data=self.raw_provider_data,
            request_id=self.request_id,
            traceparent=traceparent,
            deadline=self.deadline,
            job=self.job,
        )

    def __repr__(self) -> str:
        return f"<RequestContext {self.request_id}>"  # the rest must not reach a log


def _object_in(header: str) -> dict[str, object] | None:
    # JSON is UTF-8, whatever HTTP takes a header for; some clients nevertheless send Latin-1.
    for text in (header.encode("latin-1"), header):
        try:
            found = pydantic_core.from_json(text)
        except ValueError:
            continue
        return found if isinstance(found, dict) else None
    return None


_current: ContextVar[tuple[RequestContext, str | None]] = ContextVar(
    "llamastack_request_context", default=(RequestContext(), None)
)
"""The context, and the id of the provider call that is running, if a plugin follows calls."""


def current_context() -> RequestContext:
    """The context of the request that is being served; a context without values outside of requests."""
    return _current.get()[0]


context_and_call = _current.get
EnteredCall = Token[tuple[RequestContext, str | None]]


# perf: llamastack-v1-hooks. As a context manager, the two take three times as long.
def enter_call(context: RequestContext, call_id: str) -> EnteredCall:
    """Make a provider call the running one, until `leave_call`."""
    return _current.set((context, call_id))


leave_call = _current.reset


class EnteredContext:
    """Makes a context the current one inside a `with` block."""

    __slots__ = ("_entered", "_token")

    def __init__(self, context: RequestContext, call_id: str | None) -> None:
        self._entered = (context, call_id)
        self._token: EnteredCall | None = None

    def __enter__(self) -> RequestContext:
        self._token = _current.set(self._entered)
        return self._entered[0]

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _current.reset(self._token)


def traceparent_from(header: str) -> str | None:
    """The header `traceparent` as one of version 00; None if it is not valid.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header.
    """
    found = _TRACE.fullmatch(header.strip(" \t"))
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return None
    # Of a later version only the sampled flag is known.
    return f"00-{trace}-{parent}-{flags if version == '00' else f'{int(flags, 16) & 1:02x}'}"


def use_context(context: RequestContext | None = None, /, **changes: Unpack[ContextChanges]) -> EnteredContext:
    """`with use_context(principal=Principal("ann")):` gives the calls inside the block another context.

    context: takes the place of the current one. changes: fields of it that get other values. Raises InvalidRequestError
    for a `traceparent` that is not valid.
    """
    now, call_id = _current.get()
    base = now if context is None else context
    if changes:
        fields: ContextChanges = {
            "principal": base.principal,
            "provider_data": base.raw_provider_data,
            "request_id": base.request_id,
            "traceparent": base.traceparent,
            "deadline": base.deadline,
            "job": base.job,
        }
        fields.update(changes)
        given = changes.get("traceparent")
        if given is not None:
            fields["traceparent"] = traceparent_from(given)
            if fields["traceparent"] is None:
                raise InvalidRequestError(
                    "traceparent must be of W3C Trace Context, such as "
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                    param="traceparent",
                )
        base = RequestContext(**fields)
    return EnteredContext(base, call_id)


def use_own_context(principal: Principal | None = None) -> EnteredContext:
    """For work that belongs to no request: it sees nothing of the current context."""
    return EnteredContext(RequestContext(principal=principal), None)


def use_provider_data(data: ProviderData) -> EnteredContext:
    """`with use_provider_data(data):` makes `data` the provider data of the calls inside the block."""
    return use_context(provider_data=data)


def provider_data_to_forward() -> str | None:
    """The header for a server that this request is forwarded to, in printable ASCII.

    A header without a JSON object is forwarded unchanged: that server says whether it needs one.
    """
    context = current_context()
    raw, data = context.raw_provider_data, context.provider_data
    if data is None:
        return None if raw is None else _NOT_PRINTABLE.sub("?", str(raw))
    return json.dumps(dict(data))


def validated_provider_data(model: type[BaseModel], provider_id: str) -> BaseModel | None:
    """The data of this request read as `model`; None when the request has none.

    Fields that belong to other providers are ignored. Raises InvalidRequestError that names the field, or the header
    where that holds no JSON object.
    """
    context = current_context()
    raw = context.raw_provider_data
    if raw is None:
        return None
    if isinstance(raw, str):  # perf: llamastack-v1. In one step; what is wrong with another header is found below.
        with suppress(ValueError):
            return model.model_validate_json(raw.encode("latin-1"), extra="ignore")
    data = context.provider_data
    if data is None:
        # The message does not repeat the text, which may hold keys.
        raise InvalidRequestError(
            f"the header {PROVIDER_DATA_HEADER} must hold a JSON object",
            provider_id=provider_id,
            param=PROVIDER_DATA_HEADER,
        )
    try:
        return model.model_validate(dict(data), extra="ignore")
    except ValidationError as error:
        faults = explain_validation_error(error, model)
        where = path_of([PROVIDER_DATA_HEADER, *faults[0]["loc"]])
        raise InvalidRequestError(
            f"{where}: {faults[0]['msg']}", provider_id=provider_id, param=where, errors=faults
        ) from None
