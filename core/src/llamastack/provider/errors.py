"""The error family: every failure that a user can meet, with its HTTP status.

LlamaStackError
  InvalidRequestError            400  the request is wrong; `param` says where
    UnsupportedModelError ...    400  the provider does not serve the object that was to be registered
    ContextLengthExceededError   400  more tokens than the model takes
  AuthenticationError            401  a key is missing or refused
  PermissionDeniedError          403  the key is good but may not do this
  NotFoundError                  404  nothing of that name
    ObjectNotFoundError          404  no model, shield, memory bank of that name is served
  MethodNotAllowedError          405  the route does not take this HTTP method
  RequestTimeoutError            408  the client takes too long to send its request
  ConflictError                  409  the name is taken by something else
  RequestTooLargeError           413  the body is over the limit
    RequestHeadTooLargeError     431  the request line and the headers are
  RateLimitError                 429  the backend asks to slow down
  InternalError                  500  a fault in this software
  NotSupportedError              501  the provider cannot do this
  BackendError                   502  the backend answered nonsense
  ProviderUnavailableError       503  the provider or its backend is down
  ServerBusyError                503  the server has as much in work as it may, or is short of something
  StoreUnavailableError          503  the store cannot be used: the disk is full, the file is locked or damaged
  ProviderTimeoutError           504  the backend did not answer in time
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NoReturn, Self, TypedDict, Unpack

_MOST_NAMES = 20
LONGEST_WAIT_S = 86_400.0
"""The longest wait that is believed when a backend asks for one, in seconds: a day."""


class ErrorFields(TypedDict, total=False):
    """What an error can hold beside its message.

    provider_id: the configured provider that it happened at.
    param: path of the offending field or parameter; for a key that is missing, the header or config key it belongs in.
    retry_after: seconds until it makes sense to ask again, where that is known.
    should_retry: whether the backend wants to be asked again at all, if it said.
    backend_status: the HTTP status that the backend answered with.
    backend_code: the backend's own word for the fault, where it speaks OpenAI's API and has one.
    errors: of a wrong request, one entry per fault: `{"loc": [...], "msg": str, "type": str}`, as pydantic has it.
    challenge: how the client must authenticate, as in the header `WWW-Authenticate`.
    allowed: the HTTP methods that the route takes.
    hides_cause: whether it is raised without its cause, whose text has a secret that cannot be struck out.
    """

    provider_id: str | None
    param: str | None
    retry_after: float | None
    should_retry: bool | None
    backend_status: int | None
    backend_code: str | None
    errors: Sequence[Mapping[str, object]]
    challenge: str
    allowed: Sequence[str]
    hides_cause: bool


class LlamaStackError(Exception):
    """Base of the family; raise one of those below it.

    message: one sentence for people; never holds a secret.
    fields: what else is known, see `ErrorFields`.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"
    provider_id: str | None = None
    param: str | None = None
    retry_after: float | None = None
    should_retry: bool | None = None
    backend_status: int | None = None
    backend_code: str | None = None
    errors: Sequence[Mapping[str, object]] = ()
    challenge: str = "Bearer"
    allowed: Sequence[str] = ()
    hides_cause: bool = False

    def __init_subclass__(cls, *, status: int | None = None, code: str | None = None) -> None:
        cls.status = cls.status if status is None else status
        cls.code = cls.code if code is None else code

    def __init__(self, message: str, **fields: Unpack[ErrorFields]) -> None:
        super().__init__(message)
        self.message = message
        self.amend(**fields)

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later: the backend is down, too slow, or asks to slow down."""
        return self.status in (429, 503, 504) and self.should_retry is not False

    def amend(self, message: str | None = None, **fields: Unpack[ErrorFields]) -> Self:
        """Change the error and return it. A value of None changes nothing."""
        if unknown := fields.keys() - ErrorFields.__annotations__.keys():
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        vars(self).update({name: value for name, value in fields.items() if value is not None})
        if message is not None:
            self.message = message
            self.args = (message,)
        return self

    def to_wire(self, request_id: str | None = None) -> dict[str, dict[str, object]]:
        """The error body: `{"error": {"code", "message", "provider_id"?, "param"?, "request_id"?, ...}}`."""
        optional = {
            "provider_id": self.provider_id,
            "param": self.param,
            "request_id": request_id,
            "retry_after": self.retry_after,
            "should_retry": self.should_retry,
            # Clients of the first release read `error.detail.errors`.
            "detail": {"errors": list(self.errors)} if self.errors else None,
        }
        known = {name: value for name, value in optional.items() if value is not None}
        return {"error": {"code": self.code, "message": self.message, **known}}


class InvalidRequestError(LlamaStackError, status=400, code="invalid_request"):
    """An argument of the request is wrong; `param` names it, and `errors` lists the faults where there are several."""


class UnsupportedObjectError(InvalidRequestError, code="unsupported_object"):
    """The provider does not serve the object that was to be registered.

    identifier: of the object.
    available: identifiers that it does serve, for the message.
    reason: why, where another name would not help.
    """

    def __init__(
        self,
        identifier: str,
        *,
        available: Iterable[str] = (),
        reason: str | None = None,
        **fields: Unpack[ErrorFields],
    ) -> None:
        label = self.code.removeprefix("unsupported_").replace("_", " ")
        message = f"{label} '{identifier}' is not served" + (f": {reason}" if reason else "")
        names = sorted(set(available))
        if names:
            message += f". Served: {_listing(names)}"
        super().__init__(message, **fields)


class UnsupportedModelError(UnsupportedObjectError, code="unsupported_model"):
    """The provider does not serve the model that was to be registered."""


class UnsupportedShieldError(UnsupportedObjectError, code="unsupported_shield"):
    """The provider does not serve the shield that was to be registered."""


class UnsupportedMemoryBankError(UnsupportedObjectError, code="unsupported_memory_bank"):
    """The provider does not serve the memory bank that was to be registered."""


class ContextLengthExceededError(InvalidRequestError, code="context_length_exceeded"):
    """The prompt has more tokens than the model takes."""


class AuthenticationError(LlamaStackError, status=401, code="authentication_failed"):
    """A key is missing or was refused; `param` names the header field or config key it belongs in."""


class PermissionDeniedError(LlamaStackError, status=403, code="permission_denied"):
    """The key is good but may not do this."""


class NotFoundError(LlamaStackError, status=404, code="not_found"):
    """Nothing of that name is there, such as a session of an agent."""


class ObjectNotFoundError(NotFoundError, code="object_not_found"):
    """No object of that name is served.

    label: the kind of object, for people, such as "memory bank".
    identifier: the name.
    available: identifiers of what is served, for the message.
    note: a further sentence for the message.
    """

    def __init__(
        self,
        label: str,
        identifier: str,
        *,
        available: Iterable[str] = (),
        note: str | None = None,
        **fields: Unpack[ErrorFields],
    ) -> None:
        names = list(dict.fromkeys(available))
        message = f"no {label} '{identifier}' is served. " + (
            f"Served: {_listing(names)}" if names else f"No {label} is served at all"
        )
        if note:
            message += f". {note}"
        super().__init__(message, **fields)


class MethodNotAllowedError(LlamaStackError, status=405, code="method_not_allowed"):
    """The route does not take this HTTP method; `allowed` has those that it takes. The server raises it."""


class ConflictError(LlamaStackError, status=409, code="conflict"):
    """The name is taken by something else."""


class RequestTimeoutError(LlamaStackError, status=408, code="request_timeout"):
    """The client takes too long to send its request. The server raises it."""


class RequestTooLargeError(LlamaStackError, status=413, code="request_too_large"):
    """The body is over the limit. The server raises it."""


class RequestHeadTooLargeError(RequestTooLargeError, status=431, code="request_head_too_large"):
    """The request line and the headers are over the limit. The server raises it."""


class RateLimitError(LlamaStackError, status=429, code="rate_limited"):
    """The backend asks to slow down."""


class InternalError(LlamaStackError, code="internal_error"):
    """A fault in this software or in a provider; the log has the rest under the request id. The stack raises it."""


class NotSupportedError(LlamaStackError, status=501, code="not_supported"):
    """The provider cannot do what was asked; `param` names the parameter that asks for it."""


class BackendError(LlamaStackError, status=502, code="backend_error"):
    """The backend failed or answered something that cannot be understood."""


class ProviderUnavailableError(LlamaStackError, status=503, code="provider_unavailable"):
    """The provider or its backend is down."""


class ServerBusyError(LlamaStackError, status=503, code="server_busy"):
    """The server has as much in work as its limits allow, or is short of something, such as file descriptors.

    No provider is at fault.
    """


class StoreUnavailableError(LlamaStackError, status=503, code="store_unavailable"):
    """The stack's store cannot be used: the disk is full, the file is locked or damaged. No provider is at fault."""


class ProviderTimeoutError(LlamaStackError, status=504, code="provider_timeout"):
    """The backend did not answer in time."""


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"


def raise_translated(error: BaseException, translated: BaseException) -> NoReturn:
    """Raise `translated`, whose cause is `error`; the two may be one.

    No variable keeps either: it and the traceback would hold each other, and with them all that the frames have, such
    as the body of the request, until garbage is collected.
    """
    try:
        if translated is error:
            raise error
        if getattr(translated, "hides_cause", False):
            raise translated from None
        raise translated from error
    finally:
        del error, translated
