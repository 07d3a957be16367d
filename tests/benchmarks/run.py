"""The benchmarks: `make bench`. Each prints what was measured, the aim, and a ratio or a count where there is one.

Timings of a shared machine wander, so medians are printed, pairs are measured in turns, and nothing here is asserted.
"""

from __future__ import annotations

import gc
import json
import logging
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from installed_fakes import entry_points_in, install
from loop_watch import LoopWatch
from scripted_fake import SCRIPTS, Script
from servers_on_one_file import server_on_file

from llamastack import Stack
from llamastack.api import SamplingParams, UserMessage
from llamastack.stack.discovery import Discovery
from llamastack.stack.stores.sqlite import SqliteStore, SqliteStoreConfig

ROUNDS = 7
MODELS = 100_000
REGISTRATIONS = 60


def report(name: str, measured: str, aim: str) -> None:
    print(f"{name:<46} {measured:<58} aim: {aim}", flush=True)


def wall(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def paired(one: list[str], other: list[str]) -> tuple[float, float]:
    """Medians of two commands, run in turns, in seconds."""
    pairs = [(wall(one), wall(other)) for _ in range(ROUNDS + 1)][1:]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def bench_import() -> None:
    bare = [sys.executable, "-c", "pass"]
    for what in ("import llamastack", "from llamastack import Stack", "from llamastack import LlamaStackClient"):
        took, base = paired([sys.executable, "-c", what], bare)
        program = f"{what}; import sys; print([m for m in ('starlette', 'uvicorn', 'aiohttp') if m in sys.modules])"
        found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        report(
            what,
            f"{(took - base) * 1000:.0f} ms more than a bare python, server libraries: {found.strip()}",
            "import llamastack under 150 ms, none",
        )


def bench_help() -> None:
    command = str(Path(sys.executable).with_name("llamastack"))
    took, base = paired([command, "--help"], [sys.executable, "-c", "pass"])
    report("llamastack --help", f"{took * 1000:.0f} ms ({took / base:.1f} x a bare python)", "under 300 ms")


def bench_listing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(200):
            value = {f"remote::p{number}": f"scripted_provider_{number}:SPEC"}
            install(Path(folder), f"llamastack-provider-p{number}", {"llamastack.providers.inference": value})
        times = []
        before = set(sys.modules)
        for _ in range(ROUNDS):
            discovery = Discovery(entry_points_in(Path(folder)))
            started = time.perf_counter()
            found = [(p.name, p.package, p.version) for p in discovery.providers()]
            times.append(time.perf_counter() - started)
        imported = [m for m in set(sys.modules) - before if "provider" in m]
        report(
            f"listing {len(found)} providers of 200 distributions",
            f"{statistics.median(times) * 1000:.0f} ms, {len(imported)} provider modules imported",
            "under 50 ms, 0",
        )


async def per_call(call: Callable[[], Awaitable[object]], calls: int = 2000) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - started) / calls * 1e6


async def bench_routed_call() -> None:
    SCRIPTS["a"] = Script()
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), "scripted", {"llamastack.providers.inference": {"scripted": "scripted_fake:SPEC"}})
        config = {
            "providers": {"inference": [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}]}
        }
        async with Stack.from_config(config, discovery=Discovery(entry_points_in(Path(folder)))) as stack:
            provider = stack.instances["inference"][0].provider
            SCRIPTS["a"].deps = None  # the fake's own bookkeeping would be measured otherwise
            messages = [UserMessage(content="Hello")] * 4
            params = SamplingParams(max_tokens=10)
            pairs = []
            for _ in range(ROUNDS):
                direct = await per_call(
                    lambda: provider.chat_completion(model="m", messages=messages, sampling_params=params)
                )
                routed = await per_call(
                    lambda: stack.inference.chat_completion(model="m", messages=messages, sampling_params=params)
                )
                SCRIPTS["a"].calls.clear()
                pairs.append((routed - direct, routed / direct))
            more, ratio = (statistics.median(p[n] for p in pairs) for n in (0, 1))
            report(
                "routed in-process call, beside a direct one", f"{more:.1f} us more ({ratio:.1f} x)", "under 20 us more"
            )


async def bench_registry() -> None:
    SCRIPTS["a"] = Script(serves=[])
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), "scripted", {"llamastack.providers.inference": {"scripted": "scripted_fake:SPEC"}})
        lookups = []
        starts = []
        gc.set_threshold(50_000, 1)  # as the command `llamastack` sets it
        for count in (100, MODELS):
            path = Path(folder) / f"{count}.sqlite"
            store = SqliteStore(SqliteStoreConfig(path=path), None)
            await store.open()
            await store.close()
            with sqlite3.connect(path) as connection:
                connection.executemany(
                    "INSERT INTO records (kind, key, value) VALUES ('models', ?, ?)",
                    (
                        (f"m{n}", json.dumps({"identifier": f"m{n}", "provider_id": "a", "metadata": {}}))
                        for n in range(count)
                    ),
                )
            connection.close()
            config = {
                "providers": {
                    "inference": [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}]
                },
                "store": {"type": "sqlite", "config": {"path": str(path)}},
            }
            stack = Stack.from_config(config, discovery=Discovery(entry_points_in(Path(folder))))
            started = time.perf_counter()
            with LoopWatch() as watch:
                async with stack:
                    starts.append(time.perf_counter() - started)
                    held_up = watch.take()
                    resolve = stack._tables["inference"].resolve
                    started = time.perf_counter()
                    for _ in range(200_000):
                        resolve(f"m{count - 1}")
                    lookups.append((time.perf_counter() - started) / 200_000 * 1e9)
        report(f"registry with {MODELS:,} models: start", f"{starts[1]:.2f} s, replay included", "under 2 s")
        report("longest step of the event loop meanwhile", f"{held_up.step_s * 1000:.0f} ms of CPU", "under 50 ms")
        report(
            f"registry with {MODELS:,} models: look-up",
            f"{lookups[1]:.0f} ns, {lookups[1] / lookups[0]:.2f} x that with 100 models",
            "O(1): near 1 x",
        )


def bench_two_processes() -> None:
    """How long it takes until a second server process serves what the first has registered."""
    times: dict[str, list[float]] = {"registered": [], "unregistered": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server_on_file(folder) as one, server_on_file(folder) as two:
            for number in range(REGISTRATIONS):
                model = f"m{number}"
                for what, change, status in (("registered", one.register, 200), ("unregistered", one.unregister, 404)):
                    time.sleep(random.uniform(0, 0.5))  # so that it comes at any time of the other's pause
                    change(model)
                    started = time.perf_counter()
                    while two.status_of_call(model) != status:
                        time.sleep(0.002)
                    times[what].append(time.perf_counter() - started)
    for what, took in times.items():
        measured = f"median {statistics.median(took) * 1000:.0f} ms, maximum {max(took) * 1000:.0f} ms of {len(took)}"
        report(f"the other process follows what is {what}", measured, "maximum under 1 s")


def main() -> None:
    logging.disable(logging.INFO)
    bench_import()
    bench_help()
    bench_listing()
    anyio.run(bench_routed_call)
    anyio.run(bench_registry)
    bench_two_processes()


if __name__ == "__main__":
    main()
