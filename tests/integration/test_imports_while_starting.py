"""What a provider imports while a stack starts holds up the event loop no longer than a request may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
MOST_S = 0.050
TRIES = 3
PROGRAM = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from loop_watch import LoopWatch
from llamastack.stack import Stack

async def start():
    provider = {"provider_id": "p", "provider_type": sys.argv[3], "config": {"url": "http://127.0.0.1:9"}}
    stack = Stack.from_config({"providers": {"inference": [provider]}, "store": {"type": "memory"}})
    if sys.argv[4]:
        object.__setattr__(stack.plan.providers[0].spec, "factory", sys.argv[4])
    assert "aiohttp" not in sys.modules
    with LoopWatch() as watch:
        async with stack:
            await watch.look()
            found = watch.take()
    assert (sys.argv[4].partition(":")[0] or "aiohttp") in sys.modules
    print(found.step_s, found.step)

asyncio.run(start())
"""
# It takes 0.3 s to import.
SLOW_FACTORY = """
import time
from llamastack_provider_openai.inference import get_adapter_impl
until = time.thread_time() + 0.3
while time.thread_time() < until:
    pass
"""


@pytest.mark.parametrize("factory", ["", "slow_factory:get_adapter_impl"], ids=["http client", "slow module"])
def test_what_a_provider_imports_does_not_hold_up_the_loop(factory: str, tmp_path: Path) -> None:
    (tmp_path / "slow_factory.py").write_text(SLOW_FACTORY)
    arguments = [str(SUPPORT), str(tmp_path), "remote::openai", factory]
    longest = []
    for _ in range(TRIES):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        )
        assert done.returncode == 0, done.stderr
        step_s, _, step = done.stdout.partition(" ")
        longest.append((float(step_s), step.strip()))
        if longest[-1][0] < MOST_S:
            return
    raise AssertionError(f"one step of the loop took {min(longest)}, more than {MOST_S:g} s of CPU")
