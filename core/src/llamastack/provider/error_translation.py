"""Any exception of a provider -> one of the error family, without secrets."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from llamastack.provider.connection_errors import connection_error, is_http_error, reason_of_http_error
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
from llamastack.provider.redaction import shows_secret, struck_error

_LOGGER = logging.getLogger("llamastack.provider")
_LONGEST_MESSAGE = 2000
_LONGEST_WHOLE = 8 * 1024  # half of what is kept of what a backend says
_TOO_SLOW = "it did not answer in time"
_OF_THE_BACKEND = (AuthenticationError, PermissionDeniedError, RateLimitError, BackendError, ProviderTimeoutError)


class StrayExitError(Exception):
    """A provider raised something that is not an `Exception`: it would have ended the process or the calling task."""

    def __init__(self, message: str, cause: BaseException) -> None:
        super().__init__(message)
        self.__cause__ = cause


def shortened(text: str) -> str:
    """`text` without its middle if it is very long. Redact it first: half a secret is not found.

    The longest texts also lose their end: they were cut when they were read, perhaps in the middle of a secret.
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
    """Log `message` with a traceback that is text already, without secrets.

    It replaces the record's own traceback, which formatters put below the message. In the message its lines would
    look like text from outside.
    """
    if logger.isEnabledFor(level):
        file, line, function, _ = logger.findCaller(stacklevel=2)
        record = logger.makeRecord(logger.name, level, file, line, message, (), None, function)
        record.exc_text = trace.rstrip()
        logger.handle(record)


def as_stack_error(
    error: Exception, provider_id: str, provider_type: str, redact: Callable[[str], str]
) -> LlamaStackError:
    """The error that a caller gets when a provider raised `error`, without secrets."""
    who = f"provider '{provider_id}' ({provider_type})"
    error = unwrapped(error)
    if isinstance(error, LlamaStackError):
        made = error
    else:
        made = _translated(error, who, redact).amend(hides_cause=shows_secret(error, redact))
    struck_error(made, redact)
    message = shortened(made.message)
    if made.provider_id is None:
        made.amend(provider_id=provider_id)
        if isinstance(made, ProviderUnavailableError):
            message = f"{who} is down: {message}"
        elif isinstance(made, _OF_THE_BACKEND):
            message = f"{who}: {message}"
    return made.amend(message)


def _translated(error: Exception, who: str, redact: Callable[[str], str]) -> LlamaStackError:
    if is_shortage(error):
        return ServerBusyError(reason_of(error))
    if is_http_error(error):
        return connection_error(error, _TOO_SLOW)
    if isinstance(error, TimeoutError):
        return ProviderTimeoutError(_TOO_SLOW)
    if isinstance(error, ConnectionError):
        return ProviderUnavailableError(reason_of(error))
    trace = redact("".join(traceback.format_exception(error)))
    log_traceback(_LOGGER, logging.ERROR, f"{who} failed", trace)
    what = type(error.__cause__).__name__ if isinstance(error, StrayExitError) else type(error).__name__
    return InternalError(f"{who} failed: {what}")
