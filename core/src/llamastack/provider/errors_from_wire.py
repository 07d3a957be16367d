"""The error family as it comes over HTTP: the error object of a llamastack server -> the same error again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llamastack.provider.errors import LONGEST_WAIT_S, BackendError, ErrorFields, LlamaStackError


def error_from_wire(status: int, body: object) -> LlamaStackError:
    """The error that a llamastack server answered, made again on the client's side.

    status: HTTP status of the answer; 0 for an error event inside a stream, whose kind its code tells.
    body: the decoded JSON, or the plain text where it was none.
    """
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return BackendError(f"the server answered {status} without an error object: {str(body)[:500]}")
    code = error.get("code")
    family = list(_family(LlamaStackError))
    kinds = [kind for kind in family if kind.code == code and status in (0, kind.status)]
    kinds += [kind for kind in family if kind.status == status]
    kind = kinds[0] if kinds else BackendError
    made = kind.__new__(kind)
    # Not by the kind's own constructor, which words the message out of the names of things.
    LlamaStackError.__init__(made, str(error.get("message", f"the server answered {status}")), **_fields(error))
    return made


def _fields(error: Mapping[str, object]) -> ErrorFields:
    """What an error object says beside its message, as far as it has the form that is expected."""
    fields: ErrorFields = {}
    if isinstance(provider_id := error.get("provider_id"), str):
        fields["provider_id"] = provider_id
    if isinstance(param := error.get("param"), str):
        fields["param"] = param
    if isinstance(seconds := error.get("retry_after"), int | float) and 0 <= seconds <= LONGEST_WAIT_S:
        fields["retry_after"] = seconds
    if isinstance(again := error.get("should_retry"), bool):
        fields["should_retry"] = again
    if isinstance(detail := error.get("detail"), dict) and isinstance(faults := detail.get("errors"), list):
        fields["errors"] = faults
    return fields


def _family(root: type[LlamaStackError]) -> Iterable[type[LlamaStackError]]:
    yield root
    for child in root.__subclasses__():
        yield from _family(child)
