"""The list method of a resource API where it takes arguments: entries are chosen by their fields, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamastack.api.definition import MethodDefinition
from llamastack.provider.errors import InvalidRequestError

_PAGE_SIZE = 100
_MISSING = object()


def chosen_objects(method: MethodDefinition, objects: Sequence[Any], arguments: Mapping[str, Any]) -> object:
    """The objects whose fields equal the given arguments; a list of values means any of them.

    A method that returns `Page` gets one, of `limit` objects (100 where it is not given). Raises InvalidRequestError.
    """
    paged = method.page_type
    wanted = {name: value for name, value in arguments.items() if value is not None}
    limit, after = (wanted.pop("limit", _PAGE_SIZE), wanted.pop("after", None)) if paged else (0, None)
    found = [item for item in objects if all(_fits(getattr(item, n, _MISSING), value) for n, value in wanted.items())]
    if paged is None:
        return found
    if limit < 1:
        raise InvalidRequestError("limit: must be at least 1", param="limit")
    start = 0 if after is None else _place_after(found, after)
    page = found[start : start + limit]
    return paged(
        data=page,
        has_more=start + limit < len(found),
        last_id=f"{page[-1].provider_id}/{page[-1].identifier}" if page else None,
    )


def _fits(value: object, wanted: object) -> bool:
    return value == wanted or (isinstance(wanted, list) and value in wanted)


def _place_after(objects: Sequence[Any], after: str) -> int:
    for place, item in enumerate(objects):
        if after in (f"{item.provider_id}/{item.identifier}", item.identifier):
            return place + 1
    raise InvalidRequestError(f"after: '{after}' is not in the list any more; begin with the first page", param="after")
