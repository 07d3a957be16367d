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
  ProviderTimeoutError           504  the backend did not answer in time
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, Self

_MOST_NAMES = 20
LONGEST_WAIT_S = 86_400.0
"""The longest wait that is believed when a backend asks for one, in seconds: a day."""


class LlamaStackError(Exception):
    """Base of the family; raise one of those below it.

    message: one sentence for people; never holds a secret.
    provider_id: the configured provider that it happened at, if any.
    param: path of the offending field or parameter, if any.
    retry_after: seconds until it makes sense to ask again, where that is known.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        provider_id: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider_id = provider_id
        self.param = param
        self.backend_code: str | None = None
        """The backend's own word for the fault, where it speaks OpenAI's API and has one."""
        self.backend_status: int | None = None
        """The HTTP status that the backend answered with, where it answered."""
        self.hides_cause = False
        """Whether it is raised without its cause, whose text has a secret that cannot be struck out."""
        self.retry_after = retry_after
        """Seconds until it makes sense to ask again, where that is known."""
        self.should_retry: bool | None = None
        """Whether the backend wants to be asked again at all, if it said."""

    def details(self) -> dict[str, object]:
        """Further fields of the error object, by name."""
        return {}

    def amend(
        self,
        message: str | None = None,
        *,
        provider_id: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        backend_status: int | None = None,
        backend_code: str | None = None,
        hides_cause: bool | None = None,
    ) -> Self:
        """The same error with what is given; what is None stays as it is."""
        given = {
            "message": message,
            "provider_id": provider_id,
            "param": param,
            "retry_after": retry_after,
            "should_retry": should_retry,
            "backend_status": backend_status,
            "backend_code": backend_code,
            "hides_cause": hides_cause,
        }
        vars(self).update({name: value for name, value in given.items() if value is not None})
        if message is not None:
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
        }
        said = {name: value for name, value in optional.items() if value is not None}
        return {"error": {"code": self.code, "message": self.message, **said, **self.details()}}

    def read_wire(self, body: Mapping[str, Any]) -> None:
        """Take from the error object of a server what it says beside its message."""
        self.provider_id = body.get("provider_id")
        self.param = body.get("param")
        seconds, again = body.get("retry_after"), body.get("should_retry")
        if isinstance(seconds, int | float) and 0 <= seconds <= LONGEST_WAIT_S:
            self.retry_after = seconds
        if isinstance(again, bool):
            self.should_retry = again


class InvalidRequestError(LlamaStackError):
    """An argument of the request is wrong; `param` names it.

    errors: one entry per fault, where there are several: `{"loc": [...], "msg": str, "type": str}`, as pydantic has it.
    """

    status = 400
    code = "invalid_request"

    def __init__(
        self,
        message: str,
        *,
        provider_id: str | None = None,
        param: str | None = None,
        errors: Sequence[Mapping[str, object]] = (),
    ) -> None:
        super().__init__(message, provider_id=provider_id, param=param)
        self.errors = list(errors)

    def details(self) -> dict[str, object]:
        # Clients of the first release read `error.detail.errors`.
        return {"detail": {"errors": self.errors}} if self.errors else {}

    def read_wire(self, body: Mapping[str, object]) -> None:
        super().read_wire(body)
        detail = body.get("detail")
        self.errors = list(detail.get("errors", ())) if isinstance(detail, dict) else []


class UnsupportedObjectError(InvalidRequestError):
    """The provider does not serve the object that was to be registered.

    identifier: of the object.
    available: identifiers that it does serve, for the message.
    reason: why, where another name would not help.
    """

    code = "unsupported_object"
    label: ClassVar[str] = "object"
    identifier: str = ""
    """Empty where the error came over HTTP: its message alone has the name then."""

    def __init__(
        self,
        identifier: str,
        *,
        available: Iterable[str] = (),
        reason: str | None = None,
        provider_id: str | None = None,
    ) -> None:
        message = f"{self.label} '{identifier}' is not served" + (f": {reason}" if reason else "")
        names = sorted(set(available))
        if names:
            message += f". Served: {_listing(names)}"
        super().__init__(message, provider_id=provider_id)
        self.identifier = identifier


class UnsupportedModelError(UnsupportedObjectError):
    """The provider does not serve the model that was to be registered."""

    code = "unsupported_model"
    label = "model"


class UnsupportedShieldError(UnsupportedObjectError):
    """The provider does not serve the shield that was to be registered."""

    code = "unsupported_shield"
    label = "shield"


class UnsupportedMemoryBankError(UnsupportedObjectError):
    """The provider does not serve the memory bank that was to be registered."""

    code = "unsupported_memory_bank"
    label = "memory bank"


class ContextLengthExceededError(InvalidRequestError):
    """The prompt has more tokens than the model takes."""

    code = "context_length_exceeded"


class AuthenticationError(LlamaStackError):
    """A key is missing or was refused; `param` names the header field or config key it belongs in.

    challenge: how the client must authenticate, as in the header `WWW-Authenticate`.
    """

    status = 401
    code = "authentication_failed"
    challenge: str = "Bearer"

    def __init__(
        self, message: str, *, provider_id: str | None = None, param: str | None = None, challenge: str = "Bearer"
    ) -> None:
        super().__init__(message, provider_id=provider_id, param=param)
        self.challenge = challenge


class PermissionDeniedError(LlamaStackError):
    """The key is good but may not do this."""

    status = 403
    code = "permission_denied"


class NotFoundError(LlamaStackError):
    """Nothing of that name is there, such as a session of an agent."""

    status = 404
    code = "not_found"


class ObjectNotFoundError(NotFoundError):
    """No object of that name is served.

    label: the kind of object, for people, such as "memory bank".
    identifier: the name.
    available: identifiers of what is served, for the message.
    note: a further sentence for the message.
    """

    code = "object_not_found"

    def __init__(
        self,
        label: str,
        identifier: str,
        *,
        available: Iterable[str] = (),
        note: str | None = None,
        param: str | None = None,
        provider_id: str | None = None,
    ) -> None:
        names = list(dict.fromkeys(available))
        message = f"no {label} '{identifier}' is served. " + (
            f"Served: {_listing(names)}" if names else f"No {label} is served at all"
        )
        if note:
            message += f". {note}"
        super().__init__(message, param=param, provider_id=provider_id)


class MethodNotAllowedError(LlamaStackError):
    """The route does not take this HTTP method. The server raises it.

    allowed: the ones that it takes.
    """

    status = 405
    code = "method_not_allowed"
    allowed: tuple[str, ...] = ()

    def __init__(
        self, message: str, *, allowed: Sequence[str] = (), provider_id: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, provider_id=provider_id, param=param)
        self.allowed = tuple(allowed)


class ConflictError(LlamaStackError):
    """The name is taken by something else."""

    status = 409
    code = "conflict"


class RequestTimeoutError(LlamaStackError):
    """The client takes too long to send its request. The server raises it."""

    status = 408
    code = "request_timeout"


class RequestTooLargeError(LlamaStackError):
    """The body is over the limit. The server raises it."""

    status = 413
    code = "request_too_large"


class RequestHeadTooLargeError(RequestTooLargeError):
    """The request line and the headers are over the limit. The server raises it."""

    status = 431
    code = "request_head_too_large"


class RateLimitError(LlamaStackError):
    """The backend asks to slow down."""

    status = 429
    code = "rate_limited"


class InternalError(LlamaStackError):
    """A fault in this software or in a provider; the log has the rest under the request id. The stack raises it."""

    code = "internal_error"


class NotSupportedError(LlamaStackError):
    """The provider cannot do what was asked; `param` names the parameter that asks for it."""

    status = 501
    code = "not_supported"


class BackendError(LlamaStackError):
    """The backend failed or answered something that cannot be understood."""

    status = 502
    code = "backend_error"


class ProviderUnavailableError(LlamaStackError):
    """The provider or its backend is down."""

    status = 503
    code = "provider_unavailable"


class ServerBusyError(LlamaStackError):
    """The server has as much in work as its limits allow, or is short of something, such as file descriptors.

    No provider is at fault.
    """

    status = 503
    code = "server_busy"


class ProviderTimeoutError(LlamaStackError):
    """The backend did not answer in time."""

    status = 504
    code = "provider_timeout"


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"


def raise_translated(error: BaseException, told: BaseException) -> NoReturn:
    """Raise `told`, whose cause is `error`; the two may be one.

    No variable keeps either: it and the traceback would hold each other, and with them all that the frames have, such
    as the body of the request, until garbage is collected.
    """
    try:
        if told is error:
            raise error
        if getattr(told, "hides_cause", False):
            raise told from None
        raise told from error
    finally:
        del error, told
