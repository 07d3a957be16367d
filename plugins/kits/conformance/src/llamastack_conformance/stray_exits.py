"""What a provider raises that is no `Exception`: it would end the event loop of all checks, or the command."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import TypeVar

import anyio

_T = TypeVar("_T")


class StrayExitError(Exception):
    """A provider raised something that is no `Exception`, such as SystemExit."""


async def contained(call: Awaitable[_T]) -> _T:
    """What `call` returns. Raises what it raises, and StrayExitError for what is no `Exception`.

    Ctrl-C, and a cancellation of the task that waits, stay as they are.
    """
    try:
        return await call
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as raised:
        if isinstance(raised, asyncio.CancelledError) and _is_cancelled():
            raise
        raise StrayExitError(f"raised {type(raised).__name__}: {raised}") from raised


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0 or anyio.current_effective_deadline() == -math.inf
