"""Calls of an API that the provider under test uses, such as embeddings for a memory provider, go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llamastack.provider.errors import ProviderUnavailableError
from llamastack_conformance.breakage import Breakage, Fault
from llamastack_conformance.running import Running


class FailingCalls:
    """The calls of one method of all providers of an API; one of them can be made to fail."""

    def __init__(self, method: str) -> None:
        self.sent = 0
        self._method = method
        self._breakage: Breakage | None = None

    def break_request(self, number: int, fault: Fault) -> Breakage:
        """Let one call fail, the `number`th from now, with ProviderUnavailableError."""
        self._breakage = Breakage(number, fault)
        return self._breakage

    def clear(self) -> None:
        """Let none fail."""
        self._breakage = None

    def _wrap(self, provider: Any) -> None:
        real = getattr(provider, self._method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.sent += 1
            if self._breakage is not None and self._breakage.next() is not None:
                raise ProviderUnavailableError(f"{self._method} fails in this check")
            return await real(*args, **kwargs)

        setattr(provider, self._method, call)


@contextmanager
def failing_calls(running: Running, api: str, method: str) -> Iterator[FailingCalls]:
    """Stand before `method` of all providers of `api` in the stack that have it."""
    made = FailingCalls(method)
    providers = [i.provider for i in running.stack.instances.get(api, ()) if hasattr(i.provider, method)]
    for provider in providers:
        made._wrap(provider)
    try:
        yield made
    finally:
        for provider in providers:
            delattr(provider, method)
