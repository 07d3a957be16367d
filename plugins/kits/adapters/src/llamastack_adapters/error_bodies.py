"""Turns an error of a backend, in whatever form, into a llamastack error.

The same rules hold for an HTTP answer that is an error, an error inside a 200, and an error event of a stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pydantic_core

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
from llamastack_adapters._error_forms import codes_in, inner_error, is_unknown_path, message_in
from llamastack_adapters._error_statuses import status_in
from llamastack_adapters._error_texts import MOST_CODE, one_line, short_code, xml_error

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

_MOST_TEXT = 64 * 1024  # characters of a body that are read
_MOST_SEARCHED = 4000  # characters of a message that are searched


class ErrorBody(NamedTuple):
    """The contents of an error body.

    message: its text, in one line of at most 16 Ki characters; of a page of HTML the headings, at most 300 characters.
    param: the parameter that the error names, or None.
    code: the backend's own code for the error: the most specific word that it has, else its number in digits, or "".
    structured: whether the body holds an error object, and is not some page.
    own_code: the `code` of an error as OpenAI has it.
    status: the HTTP status that the code, type or status stands for, or None.
    kind: the general word beside `code`, such as OpenAI's `type`, or "".
    """

    message: str
    param: str | None
    code: str
    structured: bool
    own_code: str | None = None
    status: int | None = None
    kind: str = ""


def parse_error_body(body: bytes | str, headers: Mapping[str, str] = MappingProxyType({})) -> ErrorBody:
    """Read an error body. Only its first 64 Ki characters count.

    Forms: OpenAI, Anthropic, Azure (`{"error": {"message", "code", "type", "param"}}`), Google (the same with
    `status`), Elasticsearch (`{"error": {"type", "reason", "root_cause"}}`), Chroma, Spring, OAuth (`{"error",
    "message"}`), Qdrant (`{"status": {"error"}}`), FastAPI (`{"detail"}`, a text or a list), RFC 9457 (`{"title",
    "detail", "type"}`), AWS (`{"__type", "message"}`, XML), Ollama, Text Generation Inference (`{"error",
    "error_type"}`), JSON:API, GraphQL, Cloudflare (`{"errors": [...]}`), text, HTML.

    headers: those of the answer, by names in lower case. AWS may have the code of an error only there.
    """
    text = body[:_MOST_TEXT].decode(errors="replace") if isinstance(body, bytes) else body[:_MOST_TEXT]
    text = text.removeprefix("\ufeff")
    found = _parsed(text, is_cut=len(body) > _MOST_TEXT)
    named = headers.get("x-amzn-errortype")
    if named is None or found.code:
        return found
    return found._replace(code=short_code(named), status=found.status or status_in({"code": named}))


def _parsed(text: str, *, is_cut: bool) -> ErrorBody:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            # The message may stand before the place where a long body was cut.
            value = pydantic_core.from_json(text, allow_partial="trailing-strings") if is_cut else None
        except ValueError:
            value = None
        if not isinstance(value, dict):
            return _of_text(text)
    return read_error_object(value)


def _of_text(text: str) -> ErrorBody:
    xml = xml_error(text)
    if xml is not None:
        code, message = xml
        return ErrorBody(message, None, code, structured=True, status=status_in({"code": code}))
    return ErrorBody(one_line(text), None, "", structured=False)


def read_error_object(value: Any) -> ErrorBody:
    """The contents of a decoded error body, or of an error inside one, in the forms of `parse_error_body`."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]  # Google's form
    outer = value if isinstance(value, dict) else {}
    error = inner_error(value)
    fields = error if isinstance(error, dict) else outer
    message, param = message_in(error)
    code, kind = codes_in(fields)
    own = error.get("code") if isinstance(outer.get("error"), dict) and isinstance(error, dict) else None
    return ErrorBody(
        message,
        param,
        code,
        structured=not is_unknown_path(outer),
        own_code=own[:MOST_CODE] if isinstance(own, str) and own else None,
        status=status_in(fields) or (status_in(outer) if fields is not outer else None),
        kind=kind,
    )


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


def stated_error(answer: Any) -> Any:
    """The error in a decoded answer that calls it so, by `error` or `errors`; None if there is none.

    For APIs whose answers may have a `message` or a `detail` of another kind.
    """
    errors = answer.get("errors") if isinstance(answer, dict) else None
    named = isinstance(answer, dict) and bool(answer.get("error"))
    return error_in(answer) if named or (isinstance(errors, list) and errors) else None


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
    found = parse_error_body(body, headers)
    said = found.message or found.code
    message = f"{where} answered {status}" + (f": {said}" if said else "")
    if status in (404, 405) and not found.structured:
        return BackendError(f"{message}; is the url in the config right?")
    if status == 500 and found.status not in (None, 400, 500):
        status = found.status  # a gateway may report the error of its own backend as a 500
    code = f"{found.code} {found.kind}"
    made = error_of_status(status, message, code=code, param=found.param, retry_after=retry_after_of(headers))
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
    made = error_of_status(found.status or 502, message, code=f"{found.code} {found.kind}", param=found.param)
    if found.status is None:
        made = BackendError(message)
    return made.amend(backend_code=found.own_code)
