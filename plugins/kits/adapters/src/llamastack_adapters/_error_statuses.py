"""The HTTP status that the codes in an error body stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
    "error",
    "__type",
)
_DIGITS = re.compile(r"(?:HTTP[ _/-]?)?([45]\d\d)(?!\w)", re.IGNORECASE)


def status_in(error: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error object stands for. A text code is preferred: proxies add a status of 500."""
    given = [error[name] for name in _OF_STATUS if error.get(name) is not None]
    words = [_STATUS_OF_WORD.get(_plain_word(value)) for value in given if isinstance(value, str)]
    numbers = [number for value in given if (number := _number(value)) is not None]
    known = [status for status in words if status is not None]
    # A number says more than the general codes (`server_error`, `invalid_request_error`).
    exact = [status for status in known if status not in (400, 500)]
    return next(iter((*exact, *numbers, *known)), None)


def _plain_word(value: str) -> str:
    value = value[:100].partition(":")[0]  # AWS may add an address: `NotFoundException:http://...`
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", value).lower().replace("-", "_").replace(" ", "_")
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
