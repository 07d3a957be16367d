"""Any exception of a provider -> one of the error family, without secrets."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from llamastack.provider.connection_errors import error_class_of, is_http_error, reason_of_http_error
from llamastack.provider.descriptor_shortage import SHORTAGE, is_shortage
from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    InternalError,
    LlamaStackError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    ServerBusyError,
)
from llamastack.provider.redaction import keeps_secrets, struck_error

_LOGGER = logging.getLogger("llamastack.provider")
_LONGEST_MESSAGE = 2000
_LONGEST_WHOLE = 8 * 1024  # half of what is kept of what a backend says
_OF_THE_BACKEND = (AuthenticationError, PermissionDeniedError, RateLimitError, BackendError, ProviderTimeoutError)


class StrayExitError(Exception):
    """A provider raised what is no `Exception` and would have ended the whole process, or the task that called it."""

    def __init__(self, message: str, cause: BaseException) -> None:
        super().__init__(message)
        self.__cause__ = cause


def shortened(text: str) -> str:
    """`text` without its middle where it is very long. Only after redacting: a secret that is cut is not found.

    Not even its end where it is so long that it was cut when it was read, maybe in a secret.
    """
    if len(text) <= _LONGEST_MESSAGE:
        return text
    end = text[-195:] if len(text) < _LONGEST_WHOLE else ""
    return f"{text[: _LONGEST_MESSAGE - 200]} ... {end}"


def unwrapped(error: Exception) -> Exception:
    """The one error inside a group of one, however deep; task groups wrap even a single failure."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def reason_of(error: BaseException) -> str:
    """One line for people."""
    if isinstance(error, LlamaStackError):
        return error.message
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(reason_of(e) for e in error.exceptions)
    if is_shortage(error) and not is_http_error(error):
        return SHORTAGE
    if isinstance(error, TimeoutError):
        return str(error) or "timed out"
    if is_http_error(error):
        return reason_of_http_error(error)
    if isinstance(error, StrayExitError):
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def log_traceback(logger: logging.Logger, level: int, message: str, trace: str) -> None:
    """Log `message` with a traceback that is text already, secrets struck out.

    It takes the place of the record's own traceback, which formatters put below the message. Inside the message its
    lines would look like text from outside.
    """
    if logger.isEnabledFor(level):
        file, line, function, _ = logger.findCaller(stacklevel=2)
        record = logger.makeRecord(logger.name, level, file, line, message, (), None, function)
        record.exc_text = trace.rstrip()
        logger.handle(record)


def as_stack_error(
    error: Exception, provider_id: str, provider_type: str, redact: Callable[[str], str]
) -> LlamaStackError:
    """The error that a caller gets when a provider raised `error`. Secrets are also redacted in `error`."""
    who = f"provider '{provider_id}' ({provider_type})"
    error = unwrapped(error)
    if isinstance(error, LlamaStackError):
        struck_error(error, redact)
        message = shortened(error.message)
        if error.provider_id is None:
            error.amend(provider_id=provider_id)
            if isinstance(error, ProviderUnavailableError):
                message = f"{who} is down: {message}"
            elif isinstance(error, _OF_THE_BACKEND):
                message = f"{who}: {message}"
        return error.amend(message)
    made = _error_for(error, who, provider_id, redact)
    struck_error(error, redact)
    return made.amend(hides_cause=keeps_secrets(error, redact))


def _error_for(error: Exception, who: str, provider_id: str, redact: Callable[[str], str]) -> LlamaStackError:
    kind: type[LlamaStackError]
    if is_shortage(error):
        return ServerBusyError(reason_of(error), provider_id=provider_id)
    if is_http_error(error):
        kind = error_class_of(error)
    elif isinstance(error, TimeoutError):
        kind = ProviderTimeoutError
    elif isinstance(error, ConnectionError):
        kind = ProviderUnavailableError
    else:
        kind = InternalError
    if kind is ProviderTimeoutError:
        return kind(f"{who} did not answer in time", provider_id=provider_id)
    if kind is ProviderUnavailableError:
        return kind(f"{who} is down: {shortened(redact(reason_of(error)))}", provider_id=provider_id)
    if kind is BackendError:
        return kind(f"{who} failed: {shortened(redact(reason_of(error)))}", provider_id=provider_id)
    trace = redact("".join(traceback.format_exception(error)))
    log_traceback(_LOGGER, logging.ERROR, f"{who} failed", trace)
    what = type(error.__cause__).__name__ if isinstance(error, StrayExitError) else type(error).__name__
    return InternalError(f"{who} failed: {what}", provider_id=provider_id)
