"""The context of a request: who asks, with which data for providers, under which ids, and until when.

One ContextVar holds it for the time of the request, so it cannot reach another request. Providers read it with
`current_context()`; `Deps.request_data()` reads the provider data, validated by the model that the spec names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import pydantic_core
from pydantic import BaseModel, ValidationError

from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import explain_validation_error
from llamastack.provider.validation_paths import path_of

__all__ = ["EnteredContext", "Principal", "RequestContext", "current_context", "use_context"]

PROVIDER_DATA_HEADER = "X-LlamaStack-ProviderData"
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")


class ProviderDataHeader:
    """The header of one request. It is read when somebody needs it: many providers need none.

    text: as the header came, its bytes taken for Latin-1, as HTTP has it.
    """

    __slots__ = ("_data", "_read", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._read = False
        self._data: dict[str, object] | None = None

    @property
    def data(self) -> dict[str, object] | None:
        """The JSON object in it; None if it holds something else."""
        if not self._read:
            self._read = True
            found = _json_in(self.text)
            self._data = found if isinstance(found, dict) else None
        return self._data


def _json_in(text: str) -> object:
    try:
        # JSON is UTF-8, whatever HTTP takes a header for; some clients nevertheless send Latin-1.
        return pydantic_core.from_json(text.encode("latin-1"))
    except ValueError:
        pass
    try:
        return pydantic_core.from_json(text)
    except ValueError:
        return None


ProviderData = Mapping[str, object] | ProviderDataHeader | None


@dataclass(frozen=True, slots=True)
class Principal:
    """The maker of a request.

    id: stands in error messages and may stand in logs; never a secret.
    attributes: what an authentication plugin knows beside it, such as groups. They are in no log.
    """

    id: str
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)


STACK_ITSELF = Principal("llamastack")
"""Makes the calls that belong to no request, such as those of a provider's start. Only this object counts as it."""


class ContextChanges(TypedDict, total=False):
    """The fields of `RequestContext`."""

    principal: Principal | None
    provider_data: ProviderData
    request_id: str | None
    traceparent: str | None
    deadline: float | None
    call_id: str | None


class RequestContext:
    """What belongs to one request. It is not changed; `use_context` puts another one in its place.

    principal: who makes the request; None if nobody was authenticated.
    request_id: the id in the log and in `X-Request-ID`.
    traceparent: of W3C Trace Context, valid; None if the request has none.
    deadline: when calls of providers are cancelled, on the clock of `anyio.current_time()`.
    call_id: of the provider call that is running, if a plugin follows calls.
    """

    __slots__ = ("_data", "call_id", "deadline", "principal", "request_id", "traceparent")

    def __init__(
        self,
        *,
        principal: Principal | None = None,
        provider_data: ProviderData = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        deadline: float | None = None,
        call_id: str | None = None,
    ) -> None:
        self.principal = principal
        self.request_id = request_id
        self.traceparent = traceparent
        self.deadline = deadline
        self.call_id = call_id
        self._data = provider_data

    @property
    def provider_data(self) -> Mapping[str, object] | None:
        """The raw data; None without the header, or if it is not a JSON object. Never log it."""
        return self._data.data if isinstance(self._data, ProviderDataHeader) else self._data

    @property
    def raw_provider_data(self) -> ProviderData:
        """The same as it came."""
        return self._data

    def replaced(self, **changes: Unpack[ContextChanges]) -> RequestContext:
        """A copy with other values."""
        changed = RequestContext.__new__(RequestContext)
        changed._take(self, self.call_id)
        for name, value in changes.items():
            setattr(changed, "_data" if name == "provider_data" else name, value)
        return changed

    def within_call(self, call_id: str) -> RequestContext:
        """A copy for what is done inside a call of a provider."""
        inner = RequestContext.__new__(RequestContext)
        inner._take(self, call_id)
        return inner

    def _take(self, other: RequestContext, call_id: str | None) -> None:
        # perf: llamastack-v1-hooks. A copy by `__init__`, with its arguments by name, takes twice as long.
        self.principal = other.principal
        self.request_id = other.request_id
        self.traceparent = other.traceparent
        self.deadline = other.deadline
        self.call_id = call_id
        self._data = other._data

    def __repr__(self) -> str:
        return f"<RequestContext {self.request_id}>"  # the rest is nothing for a log


_NOTHING = RequestContext()
_current: ContextVar[RequestContext] = ContextVar("llamastack_request_context", default=_NOTHING)


def current_context() -> RequestContext:
    """The context of the request that is being served; one without values where there is none."""
    return _current.get()


class EnteredContext:
    """Makes a context the current one inside a `with` block."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: RequestContext) -> None:
        self._context = context
        self._token: Token[RequestContext] | None = None

    def __enter__(self) -> RequestContext:
        self._token = _current.set(self._context)
        return self._context

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _current.reset(self._token)


def use_context(context: RequestContext | None = None, /, **changes: Unpack[ContextChanges]) -> EnteredContext:
    """`with use_context(principal=Principal("ann")):` gives the calls inside the block another context.

    context: takes the place of the current one. changes: fields of it that get other values.
    """
    base = _current.get() if context is None else context
    return EnteredContext(base.replaced(**changes) if changes else base)


def use_own_context(principal: Principal | None = None) -> EnteredContext:
    """For work that belongs to no request: nothing of the current context is in it."""
    return EnteredContext(RequestContext(principal=principal))


def use_provider_data(data: ProviderData) -> EnteredContext:
    """`with use_provider_data(data):` makes `data` the provider data of the calls made inside the block."""
    return use_context(provider_data=data)


def current_provider_data() -> Mapping[str, object] | None:
    """The raw data of this request; None without the header, or if it is not a JSON object. Never log it."""
    return _current.get().provider_data


def provider_data_to_forward() -> str | None:
    """The header for a server that this request is forwarded to, in printable ASCII.

    A header without a JSON object is forwarded unchanged: that server says whether it needs one.
    """
    data = _current.get().raw_provider_data
    if isinstance(data, ProviderDataHeader):
        if data.data is None:
            return _NOT_PRINTABLE.sub("?", data.text)
        data = data.data
    return None if data is None else json.dumps(dict(data))


def validated_provider_data(model: type[BaseModel], provider_id: str) -> BaseModel | None:
    """The data of this request read as `model`; None when the request brought none.

    Fields that belong to other providers are passed over. Raises InvalidRequestError that names the field, or the
    header where that holds no JSON object.
    """
    if _current.get().raw_provider_data is None:
        return None
    data = current_provider_data()
    if data is None:
        # The text itself may hold keys: it is not repeated.
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
