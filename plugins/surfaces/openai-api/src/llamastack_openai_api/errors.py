"""The error family in OpenAI's shape.

Format: https://platform.openai.com/docs/guides/error-codes/api-errors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llamastack.provider.context import current_context
from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    ConflictError,
    ContextLengthExceededError,
    InvalidRequestError,
    LlamaStackError,
    MethodNotAllowedError,
    NotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    RequestHeadTooLargeError,
    RequestTimeoutError,
    RequestTooLargeError,
    ServerBusyError,
    StoreUnavailableError,
)
from llamastack_openai_api.paths import PREFIX as PREFIX
from llamastack_server import ErrorShape

_INVALID = "invalid_request_error"
_SERVER = "server_error"


class OpenAIError(NamedTuple):
    """type, code: OpenAI's values. status: set if OpenAI's status differs from ours."""

    type: str
    code: str | None
    status: int | None = None


ERROR_TABLE: dict[type[LlamaStackError], OpenAIError] = {
    ContextLengthExceededError: OpenAIError(_INVALID, "context_length_exceeded"),
    InvalidRequestError: OpenAIError(_INVALID, None),
    # OpenAI's answer if a model does not support a parameter. Its clients would retry a 501.
    NotSupportedError: OpenAIError(_INVALID, "unsupported_parameter", 400),
    ConflictError: OpenAIError(_INVALID, "conflict"),
    AuthenticationError: OpenAIError(_INVALID, "invalid_api_key"),
    PermissionDeniedError: OpenAIError("permission_error", "permission_denied"),
    ObjectNotFoundError: OpenAIError(_INVALID, "model_not_found"),
    NotFoundError: OpenAIError(_INVALID, "not_found"),
    MethodNotAllowedError: OpenAIError(_INVALID, "method_not_allowed"),
    RequestTimeoutError: OpenAIError(_INVALID, "request_timeout"),
    RequestHeadTooLargeError: OpenAIError(_INVALID, "request_head_too_large"),
    RequestTooLargeError: OpenAIError(_INVALID, "request_too_large"),
    RateLimitError: OpenAIError("rate_limit_error", "rate_limit_exceeded"),
    BackendError: OpenAIError(_SERVER, "backend_error"),
    ProviderUnavailableError: OpenAIError(_SERVER, "provider_unavailable"),
    ServerBusyError: OpenAIError(_SERVER, "server_busy"),
    StoreUnavailableError: OpenAIError(_SERVER, "store_unavailable"),
    ProviderTimeoutError: OpenAIError(_SERVER, "provider_timeout"),
}
"""OpenAI's terms for the error family. The first class that matches counts."""
_FAULTS = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
# Native parameters that OpenAI names differently.
_PARAMS = {
    "shield_type": "model",
    "content": "prompt",
    "contents": "input",
    "logprobs.top_k": "top_logprobs",
}
_SAMPLING = "sampling_params."


class OpenAIErrorShape(ErrorShape):
    """`{"error": {"message", "type", "param", "code"}}`, and beside them the `request_id` and `provider_id`."""

    def status_of(self, cls: type[LlamaStackError]) -> int:
        return _words_for(cls).status or cls.status

    def body(self, error: LlamaStackError) -> dict[str, Any]:
        words = _words_for(type(error))
        code = error.backend_code or words.code
        param = None if error.param is None else _PARAMS.get(error.param, error.param).removeprefix(_SAMPLING)
        if isinstance(error, NotSupportedError) and param is None:
            # The error is not about one parameter: the model lacks the whole method.
            param, code = "model", "unsupported_model"
        elif code is None and isinstance(error, InvalidRequestError):
            kind = error.errors[0]["type"] if error.errors else None
            code = _FAULTS.get(str(kind))
            if code is None and error.provider_id is None and (kind or param):
                code = "invalid_value"
        body = {"message": error.message, "type": words.type, "param": param, "code": code}
        for name, value in (("provider_id", error.provider_id), ("request_id", current_context().request_id)):
            if value is not None:
                body[name] = value
        return {"error": body}


def _words_for(cls: type[LlamaStackError]) -> OpenAIError:
    return next((words for kind, words in ERROR_TABLE.items() if issubclass(cls, kind)), OpenAIError(_SERVER, None))


OPENAI_ERRORS = OpenAIErrorShape()
