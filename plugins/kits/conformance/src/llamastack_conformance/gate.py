"""A gate at which requests wait for each other: it shows how many are on their way at the same time."""

from __future__ import annotations

import anyio


class Gate:
    """Requests wait here until enough of them wait at the same time, or one has waited too long; then it stays open.

    It shows the same as a slow backend does, and costs a provider that makes its calls at once no time.
    """

    def __init__(self, wanted: int, within_s: float) -> None:
        """wanted: how many have to wait at the same time. within_s: the longest time that one waits."""
        self._wanted = wanted
        self._within_s = within_s
        self._waiting = 0
        self._open = anyio.Event()
        self.most = 0
        """The most requests that waited at the same time."""

    @property
    def is_met(self) -> bool:
        """Whether enough requests waited at the same time."""
        return self.most >= self._wanted

    async def passed(self) -> None:
        """Wait as a request does."""
        if self._open.is_set():
            return
        self._waiting += 1
        self.most = max(self.most, self._waiting)
        if self.is_met:
            self._open.set()
        try:
            with anyio.move_on_after(self._within_s):
                await self._open.wait()
        finally:
            self._waiting -= 1
        self._open.set()
