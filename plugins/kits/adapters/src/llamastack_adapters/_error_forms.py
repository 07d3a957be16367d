"""Where the error objects of backends have their message, their code and the parameter that they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llamastack_adapters._error_texts import MOST_CODE, MOST_MESSAGE, one_line, short_code

_OF_MESSAGE = (
    "message",
    "Message",
    "detail",
    "reason",
    "error_description",
    "msg",
    "error_msg",
    "errorMessage",
    "error",
    "title",
)
# Beside `message`, Chroma and Spring have their code in `error`, and Kubernetes in `reason`.
_OF_CODE = (
    "code",
    "Code",
    "error_code",
    "errorCode",
    "__type",
    "status",
    "type",
    "error_type",
    "reason",
    "error",
)
_MOST_PLACES = 5  # faults of a list in a message
_WHERE = ("body", "query", "path", "header", "cookie")  # FastAPI's first part of a place


def inner_error(value: Any) -> Any:
    """The part of a body that is the error: an object, or a text."""
    if not isinstance(value, dict):
        return value
    error = value.get("error") or value.get("Error")
    if isinstance(error, list) and error and isinstance(error[0], dict):
        error = error[0]
    if isinstance(error, dict):
        inner = error.get("error")
        return inner if isinstance(inner, dict) else error  # gateways add one more level
    if error:
        return value if _message_name(value) not in ("error", None) else error
    status, detail, errors = value.get("status"), value.get("detail"), value.get("errors")
    if isinstance(status, dict) and status.get("error"):
        return status["error"]  # Qdrant
    if isinstance(detail, dict):
        return detail
    if isinstance(errors, list) and errors and isinstance(errors[0], dict) and not value.get("message"):
        extensions = errors[0].get("extensions")  # GraphQL has the code there
        return {**extensions, **errors[0]} if isinstance(extensions, dict) else errors[0]
    return value


def is_unknown_path(body: Mapping[str, Any]) -> bool:
    """Whether this is the answer of FastAPI or Spring for a path that no route serves."""
    if body == {"detail": "Not Found"}:
        return True
    of_spring = body.get("error") == "Not Found" and {"timestamp", "path", "status"} <= body.keys()
    message = str(body.get("message") or "")
    return of_spring and (message in ("", "No message available") or message.startswith("No static resource"))


def message_in(error: Any) -> tuple[str, str | None]:
    """(message, parameter) of an error object or text."""
    if not isinstance(error, dict):
        return _text(error), None
    name = _message_name(error)
    found = error if name is None else error[name]
    message = _text(found) if name != "reason" else ": ".join(_reasons(error))
    param = error.get("param")
    if not (isinstance(param, str) and param):
        param = _place(found[0]) if _is_list_of_faults(found) else None
    return message[:MOST_MESSAGE], param[:MOST_CODE] if param else None


def codes_in(error: Mapping[str, Any]) -> tuple[str, str]:
    """(code, kind): the most specific word, or the number in digits if there is no word; and the word after it."""
    of_message = _message_name(error)
    found = error.get(of_message) if of_message is not None else None
    if found is not None and _is_list_of_faults(found):
        error = {"type": found[0].get("type"), **error}
    given = [error[name] for name in _OF_CODE if name != of_message and _is_code(name, error.get(name))]
    words = [short_code(each) for each in given if isinstance(each, str) and not each.isdigit()]
    words = [word.rpartition("/")[2] if "://" in word else word for word in words]  # RFC 9457 has an address
    words = [*dict.fromkeys(words), *(str(each) for each in given if not isinstance(each, str) or each.isdigit())]
    return (*words, "", "")[0], (*words, "", "")[1]


def _is_code(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not value or value == "about:blank":
        return False
    # `status` is the HTTP status in most forms; Google has a code in capitals there.
    return name != "status" or (isinstance(value, str) and value.replace("_", "").isalpha() and value.isupper())


def _message_name(error: Mapping[str, Any]) -> str | None:
    return next((name for name in _OF_MESSAGE if error.get(name)), None)


def _text(found: Any) -> str:
    """A message that is a text, or a list of texts or of faults."""
    if _is_list_of_faults(found):
        shown = [": ".join(filter(None, (_place(fault), one_line(fault["msg"])))) for fault in found[:_MOST_PLACES]]
        return "; ".join([*shown, f"and {len(found) - _MOST_PLACES} more"][: len(found)])
    if isinstance(found, list) and found and all(isinstance(each, str) for each in found):
        return one_line("; ".join(found))
    return one_line(found)


def _is_list_of_faults(found: Any) -> bool:
    """Whether this is FastAPI's list of validation errors; it also repeats the input, which no message needs."""
    return isinstance(found, list) and bool(found) and all(isinstance(each, dict) and "msg" in each for each in found)


def _place(fault: Mapping[str, Any]) -> str:
    loc = fault.get("loc")
    parts = [str(part) for part in loc] if isinstance(loc, list) else []
    return one_line(".".join(parts[1:] if len(parts) > 1 and parts[0] in _WHERE else parts))[:MOST_CODE]


def _reasons(error: Mapping[str, Any]) -> Iterator[str]:
    """Elasticsearch's reasons, from the general one to its causes."""
    causes = error.get("root_cause")
    cause = causes[0] if isinstance(causes, list) and causes else None
    shown: list[str] = []
    for each in (error, cause, error.get("caused_by")):
        reason = one_line(each["reason"]) if isinstance(each, dict) and each.get("reason") else ""
        if reason and not any(reason in earlier for earlier in shown):
            shown.append(reason)
            yield reason
