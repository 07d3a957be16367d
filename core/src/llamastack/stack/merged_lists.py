"""Lists over several instances: the entries of the first instance, in its own order, then those of the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from llamastack.api.created_ids import mark_in
from llamastack.api.definition import MethodDefinition
from llamastack.provider.errors import InvalidRequestError

_Source = TypeVar("_Source")
_Arguments = Mapping[str, Any]
_Call = Callable[[_Source, _Arguments], Awaitable[Any]]


async def merged_list(
    method: MethodDefinition,
    arguments: _Arguments,
    sources: Mapping[str, _Source],
    call: _Call[_Source],
) -> object:
    """The list of all instances, or a page of it.

    sources: the instances by their marks, which are in what `call` returns already. An instance that is down fails the
    list: a part of it does not stand for the whole.
    """
    if method.page_type is None:
        return [entry for source in sources.values() for entry in await call(source, arguments)]
    return await _page(arguments, sources, call)


async def _page(
    arguments: _Arguments,
    sources: Mapping[str, _Source],
    call: _Call[_Source],
) -> object:
    """A page of `limit` entries. Without a limit it has the first page of each instance, up to one that has more.

    If an instance ends where the page ends, `last_id` is the mark of the next instance, whose entries then follow.
    """
    limit = arguments.get("limit")
    first, *others = _from(sources, arguments.get("after"))
    page = await call(sources[first], arguments)
    entries = [*page.data]
    rest = {name: value for name, value in arguments.items() if name not in ("limit", "after")}
    for mark in others:
        if page.has_more:
            break
        wanted = None if limit is None else limit - len(entries)
        if wanted == 0:  # it is full; is there more?
            if (await call(sources[mark], {**rest, "limit": 1})).data:
                return page.model_copy(update={"data": entries, "has_more": True, "last_id": mark})
            continue
        found = await call(sources[mark], rest if wanted is None else {**rest, "limit": wanted})
        if found.data:
            page = found
            entries += found.data
    return page.model_copy(update={"data": entries})


def _from(sources: Mapping[str, object], after: str | None) -> list[str]:
    """The marks of the instances that a page may have entries of."""
    marks = [*sources]
    if after is None:
        return marks
    if mark_in(after) not in marks:
        raise InvalidRequestError(
            f"after: '{after}' is no `last_id` of this list; begin with the first page", param="after"
        )
    return marks[marks.index(mark_in(after)) :]
