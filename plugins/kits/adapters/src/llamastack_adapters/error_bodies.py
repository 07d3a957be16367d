"""Turns an error of a backend, in whatever form, into a llamastack error.

The same rules hold for an HTTP answer that is an error, an error inside a 200, and an error event of a stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from llamastack.http.lone_surrogates import whole_text
from llamastack.http.retry_headers import retry_after_of, should_retry_of
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
    402: PermissionDeniedError,  # the account has unpaid bills
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
# Backends have no common code for a prompt that is too long; these are the messages of OpenAI, vLLM, llama.cpp, Text
# Generation Inference, Together, Fireworks, Ollama and Bedrock.
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|size|window)|maximum context|exceed_context|input is too long|prompt is too long"
    r"|too many (?:input )?tokens|tokens \+ `?max_new_tokens|must have less than \d+ tokens"
    r"|exceeds? (?:the )?(?:maximum|available) (?:number of tokens|context)|is too large to process",
    re.IGNORECASE,
)


# The error codes of backends, in lower case and without `_error` and `_exception` at the end -> the HTTP status for
# them. The codes are those of OpenAI, vLLM, llama.cpp, Anthropic, Google (google.rpc.Code), AWS, Text
# Generation Inference and OpenRouter.
_STATUS_OF_WORD: dict[str, int] = {
    word: status
    for status, words in {
        400: "invalid_request bad_request invalid_argument invalid_value invalid_type invalid_prompt validation "
        "unsupported_parameter unsupported_value unknown_parameter missing_required_parameter failed_precondition "
        "out_of_range context_length_exceeded exceed_context_size string_above_max_length context_window_exceeded "
        "content_policy_violation content_filter invalid_image invalid_json",
        401: "authentication invalid_api_key incorrect_api_key unauthorized unauthenticated invalid_authentication "
        "missing_api_key unrecognized_client invalid_client_token_id invalid_signature expired_token",
        402: "billing payment_required billing_not_active insufficient_credits",
        403: "permission permission_denied forbidden access_denied access_terminated",
        404: "not_found model_not_found resource_not_found",
        408: "timeout request_timeout",
        409: "conflict already_exists aborted",
        413: "request_too_large payload_too_large request_entity_too_large",
        422: "unprocessable_entity",
        429: "rate_limit rate_limit_exceeded rate_limited rate_limit_reached too_many_requests resource_exhausted "
        "insufficient_quota quota_exceeded throttling throttled tokens requests service_quota_exceeded "
        "tokens_per_minute requests_per_minute",
        500: "server internal internal_server api generation",
        501: "not_implemented unimplemented not_supported",
        503: "overloaded service_unavailable unavailable engine_overloaded model_overloaded server_overloaded "
        "server_is_overloaded slow_down model_not_ready unhealthy",
        504: "deadline_exceeded gateway_timeout",
    }.items()
    for word in words.split()
}
_ENDS_OF_WORDS = ("_error", "_exception", "_err")
_OF_STATUS = (
    "code",
    "status",
    "http_status_code",
    "status_code",
    "http_code",
    "type",
    "error_type",
    "error_code",
    "reason",
)
_OF_MESSAGE = ("message", "detail", "error", "msg", "error_msg")
_DIGITS = re.compile(r"(?:HTTP[ _/-]?)?([45]\d\d)(?!\w)", re.IGNORECASE)
_MOST_TEXT = 64 * 1024  # characters of a body that are read
_MOST_MESSAGE = 16 * 1024  # characters of its message; the stack redacts secrets, and then shows far less
_MOST_SEARCHED = 4000  # characters of a message that are searched


class ErrorBody(NamedTuple):
    """The contents of an error body.

    message: its text, in one line.
    param: the parameter that the error names, or None.
    code: the backend's own codes for the error, or "".
    structured: whether the body holds an error object, and is not some page.
    own_code: the `code` of an error as OpenAI has it.
    status: the HTTP status that the code, type or status stands for, or None.
    """

    message: str
    param: str | None
    code: str
    structured: bool
    own_code: str | None = None
    status: int | None = None


def parse_error_body(body: bytes | str) -> ErrorBody:
    """Read an error body: `{"error": {...}}` as OpenAI has it, `{"error": text}` (Ollama, TGI), `{"message": text}`
    (AWS, Databricks), `{"detail": ...}` (FastAPI), or plain text.
    """
    text = body[:_MOST_TEXT].decode(errors="replace") if isinstance(body, bytes) else body[:_MOST_TEXT]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        # A tag ends before the next begins, so the time is linear in the length.
        return ErrorBody(_one_line(re.sub(r"<[^<>]*>", " ", text)), None, "", structured=False)
    return read_error_object(value)


def read_error_object(value: Any) -> ErrorBody:
    """The contents of a decoded error body, or of an error inside one."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]  # Google's form
    if value == {"detail": "Not Found"}:  # FastAPI's answer for an unknown path
        return ErrorBody("Not Found", None, "", structured=False)
    outer = value if isinstance(value, dict) else {}
    error = outer.get("error") or value
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]  # gateways add one more level
    if not isinstance(error, dict):
        return ErrorBody(_one_line(error), None, _codes(outer), structured=True, status=_status_in(outer))
    message = next((error[name] for name in _OF_MESSAGE if error.get(name)), error)
    param = error.get("param")
    own = error.get("code") if outer.get("error") else None
    return ErrorBody(
        _one_line(message),
        param if isinstance(param, str) and param else None,
        _codes(error),
        structured=True,
        own_code=own if isinstance(own, str) and own else None,
        status=_status_in(error) or (_status_in(outer) if error is not outer else None),
    )


def _codes(error: Mapping[str, Any]) -> str:
    return " ".join(str(error[name]) for name in ("code", "type", "error_code", "error_type") if error.get(name))


def _status_in(error: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error object stands for. A text code is preferred: proxies add a status of 500."""
    given = [error[name] for name in _OF_STATUS if error.get(name) is not None]
    words = [_STATUS_OF_WORD.get(_plain_word(value)) for value in given if isinstance(value, str)]
    numbers = [number for value in given if (number := _number(value)) is not None]
    known = [status for status in words if status is not None]
    # A number says more than the general codes (`server_error`, `invalid_request_error`).
    exact = [status for status in known if status not in (400, 500)]
    return next(iter((*exact, *numbers, *known)), None)


def _plain_word(value: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", value[:100]).lower().replace("-", "_").replace(" ", "_")
    snake = snake.rpartition(".")[2].rpartition("#")[2]
    for end in _ENDS_OF_WORDS:
        snake = snake.removesuffix(end)
    return snake


def _number(value: object) -> int | None:
    """An HTTP status of an error, as a number or in digits: `429`, `HTTP_429`, `429 Too Many Requests`."""
    if isinstance(value, str) and (found := _DIGITS.match(value[:20].lstrip())) is not None:
        value = int(found[1])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600 else None


def error_in(answer: Any) -> Any:
    """The error in a decoded answer or event of a stream, in whatever form; None if there is none."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    if answer.get("error"):
        return answer
    if has_reply(answer):
        return None
    if isinstance(errors := answer.get("errors"), list) and errors:
        return {"error": errors[0]}  # Cloudflare's form
    is_error = answer.get("object") == "error" or answer.get("type") == "error"
    texts = any(isinstance(answer.get(name), str) for name in ("message", "msg", "error_msg"))
    return answer if is_error or texts or answer.get("detail") else None


def has_reply(answer: Any) -> bool:
    """Whether a decoded answer has part of a reply, whatever else it has."""
    return isinstance(answer, dict) and bool(answer.get("choices") or answer.get("data"))


def error_in_choice(answer: Any) -> Any:
    """The error that ended the choice of a reply, in OpenRouter's form; None if there is none."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not choice.get("error"):
        return None
    return {"error": choice["error"]} if str(choice.get("finish_reason")).lower() == "error" else None


def _one_line(value: object) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    except (ValueError, RecursionError):
        text = "an error that cannot be shown"
    return whole_text(" ".join(text[:_MOST_MESSAGE].split()))


def error_of_status(
    status: int, message: str, *, code: str = "", param: str | None = None, retry_after: float | None = None
) -> LlamaStackError:
    """The error for an HTTP status. `code` is the backend's own code for the error, or "".

    It has no provider_id; the stack adds it.
    """
    kind = _BY_STATUS.get(status, BackendError)
    too_long = issubclass(kind, InvalidRequestError) or status in (413, 500)
    if too_long and _TOO_LONG.search(f"{code[:200]} {message[:_MOST_SEARCHED]}"):
        kind = ContextLengthExceededError
    return kind(message, param=param, retry_after=retry_after)


def error_of_answer(status: int, headers: Mapping[str, str], body: bytes | str, where: str) -> LlamaStackError:
    """The error for a whole HTTP answer of the backend at `where` (scheme, host and port)."""
    return _error_of_answer(status, headers, body, where).amend(backend_status=status)


def _error_of_answer(status: int, headers: Mapping[str, str], body: bytes | str, where: str) -> LlamaStackError:
    if 300 <= status < 400:
        return BackendError(f"{where} redirects to {_place(headers)}; is the url in the config right?")
    found = parse_error_body(body)
    message = f"{where} answered {status}" + (f": {found.message}" if found.message else "")
    if status in (404, 405) and not found.structured:
        return BackendError(f"{message}; is the url in the config right?")
    if status == 500 and found.status not in (None, 400, 500):
        status = found.status  # a gateway may report the error of its own backend as a 500
    made = error_of_status(status, message, code=found.code, param=found.param, retry_after=retry_after_of(headers))
    return made.amend(should_retry=should_retry_of(headers), backend_code=found.own_code)


def _place(headers: Mapping[str, str]) -> str:
    place = headers.get("location", "nowhere")[:500].partition("?")[0]
    return re.sub(r"//[^/@]*@", "//", place)


def error_of_event(error: Any, who: str, what: str = "broke off") -> LlamaStackError:
    """The error inside an answer whose status is no error.

    error: the result of `error_in`, or the error object itself. who: the backend, for the message. what: what it did.
    """
    found = read_error_object({"error": error} if isinstance(error, dict) and "error" not in error else error)
    message = f"{who} {what}: {found.message}"
    made = error_of_status(found.status or 502, message, code=found.code, param=found.param)
    if found.status is None:
        made = BackendError(message)
    return made.amend(backend_code=found.own_code)
