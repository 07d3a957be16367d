"""Long lists, page by page: one form for every list that has pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Generic, TypeVar

from pydantic import Field

from llamastack.api.base import WireModel

_T = TypeVar("_T")

Limit = Annotated[int, Field(ge=1, le=1000)]
"""The most entries of a page that a caller asks for. The method decides how many there are without it."""


class Page(WireModel, Generic[_T]):
    """Some entries of a list. The method that gives it takes `limit`, the most entries of a page, and `after`."""

    data: list[_T]
    """The entries, in the order of the list."""
    has_more: bool = Field(default=False, description="Whether there are entries after these")
    last_id: str | None = Field(default=None, description="What `after` is for the next page")


async def all_listed(method: Callable[..., Awaitable[Page[_T] | list[_T]]], **arguments: object) -> AsyncIterator[_T]:
    """Every entry of a list, one page after the other: `async for file in all_listed(client.files.list_files)`.

    It does the same for a list without pages.
    """
    while True:
        page = await method(**arguments)
        for entry in page.data if isinstance(page, Page) else page:
            yield entry
        if isinstance(page, list) or not page.has_more or page.last_id is None:
            return
        arguments["after"] = page.last_id
