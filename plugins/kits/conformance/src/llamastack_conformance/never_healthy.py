"""Remembers that the provider does not become healthy: the first check waits for it, and the others do not again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import anyio

from llamastack_conformance.checks import CheckFailure, NotUsable

_WANTED = "a provider that starts and is healthy with this run config"
_MEND = "start the backend that the run config names, or correct the run config; later checks do not wait again"


class Way(NamedTuple):
    """How a check starts the provider.

    second: as the second instance. tapped: with a tap before the backend. down: the tap refuses connections.
    changes: to the config, as text. again: in a folder that an earlier stack has used.
    beside: while another stack runs with the same config.
    """

    second: bool = False
    tapped: bool = False
    down: bool = False
    changes: str = "{}"
    again: bool = False
    beside: bool = False


AS_CONFIGURED = Way()


def not_healthy(got: str) -> NotUsable:
    """The failure of a check for which the provider does not become healthy."""
    return NotUsable(got, wanted=_WANTED, mend=_MEND)


class NeverHealthy:
    """The ways of starting in which the provider did not become healthy, each with the failure of the check."""

    def __init__(self) -> None:
        self._failed: dict[Way, CheckFailure] = {}

    def raise_if(self, way: Way) -> None:
        """Raise NotUsable if an earlier check waited in vain in this way, or with the config as it is given."""
        failed = self._failed.get(AS_CONFIGURED) or self._failed.get(way)
        if failed is not None:
            raise NotUsable(failed.got, wanted=failed.wanted, mend=failed.mend, again=True)

    @contextmanager
    def remembered(self, way: Way, time_limit_s: float) -> Iterator[None]:
        """Around a start. time_limit_s: of a check, which ends a start that takes longer."""
        began = anyio.current_time()
        try:
            yield
        except CheckFailure as failure:
            self._failed[way] = failure
            raise
        except anyio.get_cancelled_exc_class():
            # What comes before a start in the same check may have taken most of its time.
            if anyio.current_time() - began > time_limit_s / 2:
                self._failed[way] = not_healthy(f"the provider does not start within {time_limit_s:g} s")
            raise
