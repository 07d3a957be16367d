"""A check whose provider raises what is no `Exception` fails; the checks after it run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llamastack_conformance.check_runner import CheckRunner
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.settings import Settings


class Odd(BaseException):
    """Of a library that does not want to be caught."""


class Suite:
    """One check that raises, one that takes too long, and one that passes."""

    def __init__(self, raised: BaseException) -> None:
        self.raised = raised

    @check("life.raises", tier=Tier.live, mend="raise an error")
    async def raises(self, subject: Any) -> None:
        """it passes"""
        raise self.raised

    @check("life.hangs", tier=Tier.live, mend="return")
    async def hangs(self, subject: Any) -> None:
        """it returns"""
        await asyncio.sleep(60)

    @check("life.passes", tier=Tier.live, mend="nothing")
    async def passes(self, subject: Any) -> None:
        """it passes"""


class Runner(CheckRunner):
    """With a short time limit."""

    settings = Settings(time_limit_s=1)


@pytest.mark.parametrize("raised", [SystemExit(3), asyncio.CancelledError("gone"), Odd("odd")], ids=repr)
def test_it_fails_and_the_next_one_runs(raised: BaseException) -> None:
    suite: Any = Suite(raised)
    with Runner().open() as runner:
        with pytest.raises(CheckFailure, match=f"raised {type(raised).__name__}: "):
            suite.raises(runner)
        suite.passes(runner)


def test_the_time_limit_still_ends_a_check() -> None:
    suite: Any = Suite(SystemExit(0))
    with Runner().open() as runner:
        with pytest.raises(CheckFailure, match="nothing for 1 s"):
            suite.hangs(runner)
        suite.passes(runner)
