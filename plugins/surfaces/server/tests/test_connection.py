"""What a connection of the server writes, and when."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from llamastack_server.connection import Connection
from llamastack_server.settings import ServerConfig

pytestmark = pytest.mark.anyio
LEAVES = b"(the client leaves)"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Written(asyncio.Transport):
    """A transport that keeps what is written, each call for itself."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.calls: list[bytes] = []
        self.closed = False
        self.after: list[int] = []
        """How many calls there were after each block that was received."""
        self.late: list[bytes] = []
        """What was written after the end: uvloop's transport fails then."""
        self.closed_by_server = False
        self.protocol: Any = None
        """A weak reference to whose transport it was."""

    def write(self, data: Any) -> None:
        (self.late if self.closed else self.calls).append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def transported(
    made: Callable[..., HttpToolsProtocol], received: Sequence[bytes], *blocks: bytes | float
) -> Written:
    """What comes of requests. blocks: of each reply; a number is a rest of so many seconds between two of them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for block in blocks:
            if isinstance(block, float):
                await anyio.sleep(block)
            elif block is LEAVES:
                transport.closed = True
                present[0]().connection_lost(None)
            else:
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body"})

    present: list[Any] = []
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    transport = Written()
    config = uvicorn.Config(app, http=made, lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    protocol = made(config, state, {})
    present.append(weakref.ref(protocol))
    protocol.connection_made(transport)
    for data in received:
        protocol.data_received(data)
        for _ in range(20):  # a request whose body is still to come is not waited for
            await asyncio.sleep(0)
        transport.after.append(len(transport.calls))
    while state.tasks:
        await asyncio.sleep(0)
    transport.closed_by_server = transport.closed
    if not transport.closed:
        protocol.connection_lost(None)
    assert not faults
    transport.protocol = present[0]
    return transport


async def written(*blocks: bytes | float, requests: int = 1) -> list[bytes]:
    """The calls that write a reply of these blocks."""
    transport = await transported(Connection, [REQUEST] * requests, *blocks)
    assert not transport.late
    return transport.calls


def bodies(calls: list[bytes]) -> list[bytes]:
    """Without the head, which the first has to bring."""
    head, _, first = calls[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    return [first, *calls[1:]]


async def test_a_reply_is_written_at_once() -> None:
    assert bodies(await written(b"one")) == [b"3\r\none\r\n", b"0\r\n\r\n"]
    assert bodies(await written()) == [b"0\r\n\r\n"]


async def test_blocks_that_are_there_together_are_written_together() -> None:
    first, rest = bodies(await written(b"one", b"two", b"three"))
    assert (first, rest) == (b"3\r\none\r\n", b"3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")


async def test_no_block_waits_for_a_later_one() -> None:
    calls = bodies(await written(b"one", b"two", 0.01, b"three", 0.01))
    assert calls == [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"5\r\nthree\r\n", b"0\r\n\r\n"]


async def test_blocks_do_not_pile_up() -> None:
    """What a transport is not given, it cannot say to be too much."""
    calls = bodies(await written(*[b"x" * 1000] * 200))
    assert len(calls) == 5
    assert max(len(call) for call in calls) < 70_000
    assert sum(call.count(b"x") for call in calls) == 200_000


async def test_nothing_is_left_for_the_next_reply() -> None:
    once = await written(b"one", b"two")
    assert await written(b"one", b"two", requests=2) == once * 2


async def test_a_connection_is_closed_when_it_should_be() -> None:
    assert not (await transported(Connection, [REQUEST], b"one")).closed_by_server
    assert (await transported(Connection, [with_header(b"Connection: close")], b"one")).closed_by_server


async def test_what_is_held_back_goes_out_before_a_refusal() -> None:
    calls = (await transported(Connection, [REQUEST, b"no request\r\n\r\n"], 0.05, b"one")).calls
    assert [call.partition(b"\r\n")[0] for call in calls] == [b"HTTP/1.1 200 OK", b"HTTP/1.1 400 Bad Request"]


async def test_nothing_is_written_to_a_client_that_has_left() -> None:
    assert bodies(await written(b"one", b"two", LEAVES, b"three")) == [b"3\r\none\r\n"]
    assert await written(LEAVES, b"one") == []


async def test_a_client_that_waits_for_it_is_told_to_go_on_at_once() -> None:
    head = with_header(b"Expect: 100-continue\r\nContent-Length: 3").replace(b"GET", b"POST")
    transport = await transported(Connection, [head, b"abc"], b"one")
    assert transport.after[0] == 1
    assert transport.calls[0] == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_connection_leaves_no_garbage() -> None:
    gc.collect()
    gc.disable()
    try:
        assert (await transported(Connection, [REQUEST + REQUEST, REQUEST], b"one")).protocol() is None
        # Nor where it is lost while requests wait behind another.
        assert (await transported(Connection, [REQUEST * 3], b"one", LEAVES)).protocol() is None
    finally:
        gc.enable()


def with_header(line: bytes) -> bytes:
    return REQUEST.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")


PLAIN = [REQUEST, REQUEST.replace(b"GET", b"HEAD")]
LAST = [
    [],
    [with_header(b"Connection: close")],
    [REQUEST + b"no request\r\n\r\n"],
    [with_header(b"Expect: 100-continue\r\nContent-Length: 3").replace(b"GET", b"POST"), b"abc"],
]


@given(
    st.lists(st.lists(st.sampled_from(PLAIN), min_size=1, max_size=3).map(b"".join), max_size=3),
    st.sampled_from(LAST),
    st.lists(st.one_of(st.binary(max_size=5), st.just(0.0), st.just(b"y" * 70_000)), max_size=6),
)
def test_the_bytes_are_uvicorns_own(received: list[bytes], last: list[bytes], blocks: list[bytes | float]) -> None:
    """Also of requests that come before the reply to the one before them."""
    ours, its = (asyncio.run(transported(made, received + last, *blocks)) for made in (Connection, HttpToolsProtocol))
    assert b"".join(ours.calls) == b"".join(its.calls)
    assert ours.closed_by_server == its.closed_by_server
    assert not ours.late  # uvicorn's own goes on after a request that is none
    assert len(ours.calls) <= len(its.calls)


LIMIT = 200


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=4),
    st.sampled_from([b"", b"b" * 10, b"b" * 1000]),
    st.lists(st.integers(0, 1500), max_size=8),
)
def test_the_limit_of_heads_is_the_same_however_they_come(sizes: list[int], body: bytes, cuts: list[int]) -> None:
    """A head of the limit's size is taken, and one byte more is not."""
    start = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX: " % len(body)
    heads = [start + b"a" * (LIMIT + size - len(start) - 4) + b"\r\n\r\n" for size in sizes]
    data = b"".join(head + body for head in heads)
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts), *_starts(heads, body)})
    pieces = [data[one:other] for one, other in pairwise(places)]
    made = partial(Connection, settings=ServerConfig(max_head_bytes=LIMIT))
    calls = asyncio.run(transported(made, pieces, b"one")).calls
    first_over = next((place for place, size in enumerate(sizes) if size > 0), None)
    statuses = [call.split()[1] for call in calls if call.startswith(b"HTTP/1.1")]
    if first_over is None:
        assert statuses == [b"200"] * len(sizes)
    else:
        assert statuses == [b"200"] * first_over + [b"431"]


def _starts(heads: list[bytes], body: bytes) -> list[int]:
    found = [0]
    for head in heads:
        found.append(found[-1] + len(head) + len(body))
    return found
