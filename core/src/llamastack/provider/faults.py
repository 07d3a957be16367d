"""Any exception of a provider -> one of the error family, without secrets."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping

from pydantic import BaseModel, SecretBytes, SecretStr

from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    InternalError,
    LlamaStackError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llamastack.provider.http import error_class_of, is_http_error, reason_of_http_error
from llamastack.provider.request_data import current_provider_data

_LOGGER = logging.getLogger("llamastack.provider")
_SHORTEST_SECRET = 4
_LONGEST_MESSAGE = 2000
_OF_THE_BACKEND = (AuthenticationError, PermissionDeniedError, RateLimitError, BackendError, ProviderTimeoutError)


def secrets_in(value: object) -> Iterable[str]:
    """Every secret text inside a provider's config."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, SecretBytes):
        yield value.get_secret_value().decode(errors="replace")
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_in(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from secrets_in(item)


def _texts_in(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts_in(item)


def redactor(config: object) -> Callable[[str], str]:
    """A function that strikes the secrets of `config`, and those of the current request, out of a text."""
    fixed = tuple(s for s in secrets_in(config) if len(s) >= _SHORTEST_SECRET)

    def redact(text: str) -> str:
        data = current_provider_data()
        own = [s for s in _texts_in(data) if len(s) >= _SHORTEST_SECRET] if data else []
        for secret in sorted((*fixed, *own), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    return redact


def shortened(text: str) -> str:
    """`text` without its middle where it is very long. Only after redacting: a secret that is cut is not found."""
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 200]} ... {text[-195:]}"


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
    if isinstance(error, TimeoutError):
        return str(error) or "timed out"
    if is_http_error(error):
        return reason_of_http_error(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def as_stack_error(
    error: Exception, provider_id: str, provider_type: str, redact: Callable[[str], str]
) -> LlamaStackError:
    """What a caller is told when a provider raised `error`."""
    who = f"provider '{provider_id}' ({provider_type})"
    error = unwrapped(error)
    if isinstance(error, LlamaStackError):
        message = shortened(redact(error.message))
        if error.provider_id is None:
            error.provider_id = provider_id
            if isinstance(error, ProviderUnavailableError):
                message = f"{who} is down: {message}"
            elif isinstance(error, _OF_THE_BACKEND):
                message = f"{who}: {message}"
        return error.reword(message)
    made: LlamaStackError
    if is_http_error(error):
        kind: type[LlamaStackError] = error_class_of(error)
    elif isinstance(error, TimeoutError):
        kind = ProviderTimeoutError
    elif isinstance(error, ConnectionError):
        kind = ProviderUnavailableError
    else:
        kind = InternalError
    if kind is ProviderTimeoutError:
        made = kind(f"{who} did not answer in time", provider_id=provider_id)
    elif kind is ProviderUnavailableError:
        made = kind(shortened(redact(f"{who} is down: {reason_of(error)}")), provider_id=provider_id)
    elif kind is BackendError:
        made = kind(shortened(redact(f"{who} failed: {reason_of(error)}")), provider_id=provider_id)
    else:
        _LOGGER.error("%s failed\n%s", who, redact("".join(traceback.format_exception(error))).rstrip())
        made = InternalError(f"{who} failed: {type(error).__name__}", provider_id=provider_id)
    return made
