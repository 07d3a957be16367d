"""An HTTP answer that is an error -> one of the error family, whatever form the backend gives its errors."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    ConflictError,
    ContextLengthExceededError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    RequestTooLargeError,
)

_BY_STATUS: dict[int, type[LlamaStackError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: PermissionDeniedError,  # the account is not paid up
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ProviderTimeoutError,
    409: ConflictError,
    413: RequestTooLargeError,
    422: InvalidRequestError,
    424: BackendError,
    429: RateLimitError,
    501: NotSupportedError,
    502: ProviderUnavailableError,
    503: ProviderUnavailableError,
    504: ProviderTimeoutError,
    529: ProviderUnavailableError,  # overloaded
}
# Backends have no common code for a prompt that is too long; these are the words of OpenAI, vLLM, llama.cpp, Text
# Generation Inference, Together, Fireworks, Ollama and Bedrock.
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|maximum context|exceed_context|input is too long|prompt is too long"
    r"|too many (?:input )?tokens|tokens \+ `?max_new_tokens|must have less than \d+ tokens"
    r"|exceeds? (?:the )?(?:maximum|available) (?:number of tokens|context)|is too large to process",
    re.IGNORECASE,
)


class Said(NamedTuple):
    """What an error body says.

    message: its text, in one line.
    param: the parameter that it names, or None.
    code: the backend's own word for the fault, "" where it has none.
    told: whether it is the backend's own error object, not some page.
    own_code: the `code` of an error as OpenAI has it.
    """

    message: str
    param: str | None
    code: str
    told: bool
    own_code: str | None = None


def said_in(body: bytes | str) -> Said:
    """Read an error body: `{"error": {...}}` as OpenAI has it, `{"error": text}` (Ollama, TGI), `{"message": text}`
    (AWS, Databricks), `{"detail": ...}` (FastAPI), or plain text.
    """
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        shown = " ".join(re.sub(r"<[^>]*>", " ", text).split())
        return Said(shown, None, "", told=False)
    if value == {"detail": "Not Found"}:  # FastAPI's for a path that is not there
        return Said("Not Found", None, "", told=False)
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        outer = value if isinstance(value, dict) else {}
        return Said(_one_line(error), None, str(outer.get("error_type") or ""), told=True)
    message = next((error[name] for name in ("message", "detail", "error", "msg") if error.get(name)), error)
    code = " ".join(str(error[name]) for name in ("code", "type", "error_code") if error.get(name))
    param = error.get("param")
    own = error.get("code") if "error" in value else None
    return Said(
        _one_line(message),
        param if isinstance(param, str) and param else None,
        code,
        told=True,
        own_code=own if isinstance(own, str) and own else None,
    )


def _one_line(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.split())


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, given as a number or as a date (RFC 9110, 10.2.3); None without one."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def error_of_status(
    status: int, message: str, *, code: str = "", param: str | None = None, retry_after: float | None = None
) -> LlamaStackError:
    """The error for an HTTP status. `code` is the backend's own word for the fault, where it has one.

    It carries no provider_id: the stack puts it in.
    """
    kind = _BY_STATUS.get(status, BackendError)
    if issubclass(kind, InvalidRequestError) or status in (413, 500):
        if _TOO_LONG.search(f"{code} {message}"):
            return ContextLengthExceededError(message, param=param)
    elif kind is RateLimitError:
        return RateLimitError(message, retry_after=retry_after, param=param)
    return kind(message, param=param)


def error_of_answer(status: int, headers: Mapping[str, str], body: bytes | str, where: str) -> LlamaStackError:
    """The error for a whole HTTP answer of the backend at `where` (scheme, host and port)."""
    if 300 <= status < 400:
        return BackendError(f"{where} redirects to {_place(headers)}; is the url in the config right?")
    said = said_in(body)
    message = f"{where} answered {status}" + (f": {said.message}" if said.message else "")
    if status in (404, 405) and not said.told:
        return BackendError(f"{message}; is the url in the config right?")
    made = error_of_status(status, message, code=said.code, param=said.param, retry_after=retry_after_of(headers))
    made.backend_code = said.own_code
    return made


def _place(headers: Mapping[str, str]) -> str:
    place = headers.get("location", "nowhere").partition("?")[0]
    return re.sub(r"//[^/@]*@", "//", place)


def error_of_event(error: Any, who: str) -> LlamaStackError:
    """The error for an error object inside a stream that has begun."""
    said = said_in(json.dumps({"error": error}))
    status = error.get("code") if isinstance(error, dict) else None
    message = f"{who} broke off: {said.message}"
    made: LlamaStackError = BackendError(message)
    if isinstance(status, int) and 400 <= status < 600:
        made = error_of_status(status, message, code=said.code, param=said.param)
    made.backend_code = said.own_code
    return made
