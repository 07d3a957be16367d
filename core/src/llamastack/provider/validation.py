"""Words for what pydantic found wrong, without repeating the input, which may hold secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from llamastack.provider.errors import InvalidRequestError


def faults_of(error: ValidationError) -> list[dict[str, Any]]:
    """One `{"loc", "msg", "type"}` per fault."""
    found = []
    for fault in error.errors(include_url=False, include_input=False):
        message = fault["msg"]
        loc = list(fault["loc"])
        if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
            loc.append(str(fault["ctx"]["discriminator"]).strip("'"))
        if fault["type"] == "extra_forbidden":
            message = "unknown field"
        elif fault["type"] == "missing":
            message = "required field is missing"
        found.append({"loc": loc, "msg": message, "type": fault["type"]})
    return found


def path_of(loc: Sequence[object], value: object = None) -> str:
    """`["messages", 0, "user", "content"]` -> `messages[0].content`.

    Pydantic puts the tags of unions into the path; those that are no key of `value` are left out where it is known.
    """
    path = ""
    at: object = value
    known = value is not None
    for place, part in enumerate(loc):
        last = place == len(loc) - 1
        if isinstance(part, int):
            path += f"[{part}]"
            at = at[part] if known and isinstance(at, list) and part < len(at) else None
        else:
            if known and isinstance(at, Mapping):
                if part not in at and not last:
                    continue
                at = at.get(part)
            elif (known and not last) or (known and at is not None):
                continue
            path += f".{part}" if path else str(part)
    return path


def invalid_request(error: ValidationError, value: object = None, **context: Any) -> InvalidRequestError:
    """The error for a request that does not fit, naming the first fault's path and listing all."""
    faults = faults_of(error)
    paths = [path_of(fault["loc"], value) for fault in faults]
    by_path: dict[str, list[str]] = {}
    for path, fault in zip(paths, faults, strict=True):
        if fault["msg"] not in by_path.setdefault(path, []):
            by_path[path].append(fault["msg"])
    named = [f"{path}: {' or '.join(said)}" if path else " or ".join(said) for path, said in by_path.items()]
    message = "; ".join(named[:3]) + (f"; and {len(named) - 3} more" if len(named) > 3 else "")
    return InvalidRequestError(message, param=paths[0] or None, errors=faults, **context)
