"""No request holds up the event loop: the largest bodies that are allowed, through every route, valid and invalid.

What counts is CPU time, so that a busy machine makes nothing fail: at most 50 ms for one step of the loop, or 20 ms for
each MiB of the body where that is more.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from backends.scripted_http import Received, ScriptedHttp, Steps, answer, scripted_http, served_by
from large_bodies import FILLINGS, WHOLE, Bodies, Largest
from loop_watch import HeldUp, LoopWatch
from served_stack import served_stack

from llamastack.stack import Stack
from llamastack_openai_api.errors import PREFIX
from llamastack_openai_api.routes import MOST_ANSWERS, ROUTES, OpenAIEndpoint
from llamastack_server.native_endpoint import NativeEndpoint
from llamastack_server.settings import ServerConfig

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]
MIB = 2**20
MOST_S = 0.050
MOST_S_PER_MIB = 0.020
TRIES = 3
PATIENCE_S = 60
INFLATED = 2 * MIB
NAMES: Mapping[str, Any] = {"shield_type": "sample-words", "bank_id": "bank", "agent_id": "none", "session_id": "none"}
CONFIG: dict[str, Any] = {
    "providers": {
        "inference": [{"provider_id": "echo", "provider_type": "remote::sample", "config": {"models": ["m", "n"]}}],
        **{
            api: [{"provider_id": api, "provider_type": "remote::sample"}]
            for api in ("safety", "memory", "agents", "telemetry")
        },
    },
    "memory_banks": [{"identifier": "bank", "type": "keyword"}],
}
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
}
EMBEDDINGS = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}


@dataclass(frozen=True)
class Case:
    """One request. body: makes it, as it may be large."""

    name: str
    route: str
    body: Callable[[], bytes]
    method: str = "POST"
    headers: str = ""


class Server:
    """A served stack, and a client of it that is a thread with a socket: what it does is not counted."""

    def __init__(self, stack: Stack, url: httpx.URL, watch: LoopWatch, client: Executor) -> None:
        self.stack = stack
        self.limit = stack.config.section("server", ServerConfig).max_body_bytes
        self._address = (url.host, url.port or 0)
        self._watch = watch
        self._client = client

    def largest(self, *, openai: bool) -> Largest:
        """What a body may be, but for its size: the largest are few, as they take long."""
        kind = OpenAIEndpoint if openai else NativeEndpoint
        return Largest(
            INFLATED, self.stack.config.section("server", ServerConfig).max_body_elements, kind.numbers_in_one
        )

    async def ask(self, case: Case) -> tuple[int, int, HeldUp]:
        """Status, bytes of the body, and how long the loop was held up: the least of a few tries."""
        body = case.body()
        best: HeldUp | None = None
        for _ in range(TRIES):
            await anyio.lowlevel.checkpoint()  # the step that made the body is over
            self._watch.take()
            status = await asyncio.wrap_future(self._client.submit(self._send, case, body))
            await self._watch.look()
            found = self._watch.take()
            if best is None or max(found.step_s, found.gap_s) < max(best.step_s, best.gap_s):
                best = found
            if max(best.step_s, best.gap_s) <= allowed_s(len(body)):
                break
            gc.collect()  # what others left behind is not looked through once more
        assert best is not None
        return status, len(body), best

    def _send(self, case: Case, body: bytes) -> int:
        head = (
            f"{case.method} {case.route} HTTP/1.1\r\nHost: {self._address[0]}\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n{case.headers}\r\n"
        )
        begun = b""
        with socket.create_connection(self._address, timeout=PATIENCE_S) as connection:
            sender = threading.Thread(target=self._push, args=(connection, head.encode(), body))
            sender.start()
            with suppress(OSError):  # what was answered before counts
                while len(begun) < 16 and (block := connection.recv(16)):
                    begun += block
                while connection.recv(MIB):
                    pass
        sender.join()
        return int(begun.split(b" ")[1]) if begun.startswith(b"HTTP/") else 0

    @staticmethod
    def _push(connection: socket.socket, *parts: bytes) -> None:
        with suppress(OSError):  # it was refused before it was read to its end
            for part in parts:
                connection.sendall(part)


@asynccontextmanager
async def watched(config: Mapping[str, Any], *away: int) -> AsyncIterator[Server]:
    with ThreadPoolExecutor(1) as sends:
        sender = sends.submit(threading.get_ident).result()
        async with served_stack(config) as (stack, client):
            with LoopWatch((sender, *away)) as watch:
                yield Server(stack, client.base_url, watch, sends)


def allowed_s(size: int) -> float:
    return max(MOST_S, MOST_S_PER_MIB * size / MIB)


async def find_slow_or_failed(server: Server, cases: Iterable[Case]) -> list[str]:
    """What was too slow, and what was no answer."""
    faults: list[str] = []
    for case in cases:
        status, size, found = await server.ask(case)
        what = f"{case.route.partition('?')[0][:60]}: {case.name}: {size / MIB:.1f} MiB, {status}"
        if status < 200 or (status >= 500 and status != 501):
            faults.append(what)
        if max(found.step_s, found.gap_s) > allowed_s(size):
            step, gap, allowed = (round(seconds * 1000) for seconds in (found.step_s, found.gap_s, allowed_s(size)))
            faults.append(f"{what}: step {step} ms ({found.step}), gap {gap} ms, allowed {allowed} ms")
    return faults


def check(faults: list[str]) -> None:
    assert not faults, f"{len(faults)} held up the loop or failed:\n" + "\n".join(faults)


def bodies_of(stack: Stack, *, openai: bool) -> Iterator[tuple[str, Bodies]]:
    """Route and bodies of each route that takes one."""
    for definition in () if openai else stack.apis.values():
        for method in definition.methods.values():
            if "POST" in method.web.methods:
                yield method.web.route, Bodies(method.request_model.model_json_schema(), NAMES)
    for route in ROUTES if openai else ():
        if route.request is not None:
            yield PREFIX + route.path, Bodies(route.request.json_schema(), NAMES)


def inflated(bodies: Iterator[tuple[str, Bodies]], most: Largest) -> Iterator[Case]:
    """Each place of each body, by everything that can stand there."""
    for route, of_route in bodies:
        for place in of_route.places():
            for name, make in FILLINGS[place.kind].items():
                yield Case(f"{place.path} is {name}", route, lambda place=place, make=make: place.filled(make(most)))
            for item in map(json.dumps, place.items):
                yield Case(
                    f"{place.path} has {item}", route, lambda place=place, item=item: place.filled(most.many(item))
                )


def whole(bodies: Iterator[tuple[str, Bodies]], limit: int) -> Iterator[Case]:
    """Bodies that are wrong as a whole; two of them for each route just fit, and so does a valid one."""
    routes = list(bodies)
    for place, (name, make) in enumerate(WHOLE.items()):
        made = functools.cache(make)  # to make one takes longer than to refuse it, and all routes get the same
        for number, (route, _) in enumerate(routes):
            fits = (place - 2 * number) % len(WHOLE) < 2
            yield Case(name, route, functools.partial(made, (limit if fits else INFLATED) - 200))
    for route, of_route in routes:
        valid = next((place for place in of_route.places() if place.kind == "string"), None)
        if valid is not None:
            text = f'"{"a" * (limit - 4096)}"'
            yield Case(f"{valid.path} is long", route, functools.partial(valid.filled, text))


@pytest.mark.parametrize("openai", [False, True], ids=["native", "openai"])
async def test_each_place_of_each_body(openai: bool) -> None:
    async with watched(CONFIG) as server:
        faults = await find_slow_or_failed(
            server, inflated(bodies_of(server.stack, openai=openai), server.largest(openai=openai))
        )
    check(faults)


@pytest.mark.parametrize("openai", [False, True], ids=["native", "openai"])
async def test_whole_bodies(openai: bool) -> None:
    async with watched(CONFIG) as server:
        faults = await find_slow_or_failed(server, whole(bodies_of(server.stack, openai=openai), server.limit))
    check(faults)


@pytest.fixture
def backend() -> Iterator[ScriptedHttp]:
    with scripted_http() as made:
        yield made


@pytest.mark.parametrize("model", ["m", "p/m", "alias"])
async def test_requests_that_are_forwarded(model: str, backend: ScriptedHttp) -> None:
    def reply(request: Received) -> Steps:
        backend.received.clear()
        return answer(200, EMBEDDINGS if request.path.endswith("embeddings") else COMPLETION)

    backend.default = reply
    config = {"providers": {"inference": [served_by(backend, models={"alias": "m"})]}}
    names = {**NAMES, "model": model}
    routes = [
        (PREFIX + route.path, Bodies(route.request.json_schema(), names))
        for route in ROUTES
        if route.request is not None and route.api == "inference"
    ]
    async with watched(config, *backend_threads()) as server:
        faults = await find_slow_or_failed(server, whole(iter(routes), server.limit))
        if model == "p/m":  # its name in the body is another at the backend
            faults += await find_slow_or_failed(server, inflated(iter(routes), server.largest(openai=True)))
    check(faults)


def backend_threads() -> tuple[int, ...]:
    return tuple(thread.ident or 0 for thread in threading.enumerate() if thread.name == "scripted-http")


async def test_many_answers_and_long_streams() -> None:
    message = {"role": "user", "content": "ab " * 50_000}
    bodies = {
        "/inference/chat_completion": {"messages": [message]},
        "/inference/completion": {"content": message["content"]},
        "/v1/chat/completions": {"messages": [message]},
        "/v1/completions": {"prompt": message["content"]},
    }
    many = [f"{number} b" for number in range(MOST_ANSWERS)]
    cases = [
        Case("answers", "/v1/completions", json.dumps({"model": "m", "prompt": many}).encode),
        Case("streams", "/v1/completions", json.dumps({"model": "m", "prompt": many, "stream": True}).encode),
        Case("moderations", "/v1/moderations", json.dumps({"model": "sample-words", "input": many}).encode),
    ]
    cases += [
        Case("stream", route, json.dumps({"model": "m", "stream": True, **body}).encode)
        for route, body in bodies.items()
    ]
    async with watched(CONFIG) as server:
        faults = await find_slow_or_failed(server, cases)
    check(faults)


async def test_heads_and_queries() -> None:
    def cases(server: Server) -> Iterator[Case]:
        size = 60_000
        data = '{"a":' * (size // 6) + "1" + "}" * (size // 6)
        for definition in server.stack.apis.values():
            for method in definition.methods.values():
                for http_method in method.web.methods:
                    route, nothing = method.web.route, bytes
                    for name in ("a", *method.parameters):
                        query = "&".join([f"{name}=1"] * (size // (len(name) + 3)))
                        yield Case(f"query {name}", f"{route}?{query}", nothing, http_method)
                    yield Case("path", route + "x" * size, nothing, http_method)
                    yield Case("nested", route, nothing, http_method, f"X-LlamaStack-ProviderData: {data}\r\n")
                    heads = "".join(f"x{n}: 1\r\n" for n in range(size // 10))
                    yield Case("headers", route, nothing, http_method, heads)

    async with watched(CONFIG) as server:
        faults = await find_slow_or_failed(server, cases(server))
    check(faults)


async def test_the_watch_sees_a_step_and_a_thread_that_hold_up_the_loop() -> None:
    def work() -> None:
        sum(range(5_000_000))  # in one call that keeps the interpreter

    with LoopWatch() as watch:
        await anyio.sleep(0.05)
        assert watch.take().step_s < 0.04
        work()
        await anyio.sleep(0.05)
        found = watch.take()
        assert found.step_s > 0.02
        assert found.gap_s > 0.02
        await anyio.to_thread.run_sync(work)
        await anyio.sleep(0.05)
        assert watch.take().gap_s > 0.02
