"""Server-sent events, however the bytes of a stream are cut into blocks."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack.http.sse import MOST_EVENT_BYTES, iter_data
from llamastack.provider.errors import BackendError
from llamastack_adapters.sse_blocks import is_boundary, iter_events, split_at_events, without_empty


async def _blocks(stream: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    places = sorted({0, *(cut % (len(stream) + 1) for cut in cuts), len(stream)})
    for start, end in itertools.pairwise(places):
        yield stream[start:end]


def read(stream: bytes, *cuts: int, most: int = MOST_EVENT_BYTES) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [data async for data in iter_data(_blocks(stream, list(cuts)), most)]

    return anyio.run(collect)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b": a comment\n\nevent: x\nid: 7\ndata: a\nretry: 3\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\n", [b"a"]),
        (b'data: a\n\ndata: {"cut', [b"a"]),
        (b"data\n\nnonsense\n\n", []),
        (b'data: null\n\ndata: ""\r\n\r\ndata: \ndata: null\n\ndata: "null"\n\n', [b'"null"']),
        ("data: a\u2028b\u0085\n\n".encode(), ["a\u2028b\u0085".encode()]),
    ],
)
def test_streams(stream: bytes, events: list[bytes]) -> None:
    assert read(stream) == events


_LINE = st.text(st.characters(blacklist_characters="\r\n", codec="utf-8"), max_size=20).map(
    lambda t: t.strip().encode()
)


@given(st.lists(_LINE, max_size=6), st.sampled_from([b"\n", b"\r\n"]), st.lists(st.integers(0, 400), max_size=8))
def test_what_was_written_is_read(events: list[bytes], end: bytes, cuts: list[int]) -> None:
    stream = b"".join(b": ping" + end + end + b"data: " + event + end + end for event in events)
    assert read(stream, *cuts) == [data for event in events if not is_nothing([data := event.strip()])]


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    assert read(b"\xef\xbb\xbfdata: a\n\n") == [b"a"]


def test_a_long_event_in_many_blocks_and_one_without_an_end() -> None:
    long = b"x" * 300_000
    assert read(b"data: " + long + b"\n\n", *range(0, 300_000, 64)) == [long]
    for endless in (b"data: " + long, b"data: x\n" * 1000, b": " + long):
        with pytest.raises(BackendError, match="an event of more than 1000 bytes"):
            read(endless, *range(0, 300_000, 64), most=1000)


def whole(stream: bytes, *cuts: int, most: int = MOST_EVENT_BYTES) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [block async for block in split_at_events(_blocks(stream, list(cuts)), most)]

    return anyio.run(collect)


@given(st.lists(_LINE, max_size=6), st.sampled_from([b"\n", b"\r\n"]), st.lists(st.integers(0, 400), max_size=8))
def test_blocks_are_cut_only_where_an_event_ends(events: list[bytes], end: bytes, cuts: list[int]) -> None:
    stream = b"".join(b": ping" + end + end + b"data: " + event + end + end for event in events)
    blocks = whole(stream, *cuts)
    assert b"".join(blocks) == stream
    assert all(block.endswith((b"\n\n", b"\r\n\r\n")) for block in blocks)


def test_an_event_that_is_cut_off_is_left_out_and_one_without_its_blank_line_is_not() -> None:
    assert whole(b"data: a\n\ndata: cut") == [b"data: a\n\n"]
    assert whole(b"data: a\n\ndata: [DONE]\n") == [b"data: a\n\n", b"data: [DONE]\n\n"]
    assert whole(b"") == []


def test_a_long_event_in_many_blocks_is_one_block() -> None:
    long = b"data: " + b"x" * 300_000 + b"\n\n"
    assert whole(long, *range(0, 300_000, 64)) == [long]
    assert whole(long, *range(0, 300_000, 64), *range(299_990, 300_008)) == [long]


@given(st.lists(_LINE, max_size=4), st.sampled_from([b"\n", b"\r\n"]))
def test_the_events_of_a_block(events: list[bytes], end: bytes) -> None:
    stream = b"".join(b": ping" + end + b"event: x" + end + b"data: " + event + end + end for event in events)
    found = list(iter_events(stream))
    assert [data for _, data in found] == [event.strip() for event in events]
    assert [place for place, _ in found][-1:] == ([len(stream)] if events else [])


def test_an_event_without_an_end_is_too_long_some_time() -> None:
    with pytest.raises(BackendError, match="an event of more than 1000 bytes"):
        whole(b"data: " + b"x" * 5000, *range(0, 5000, 64), most=1000)


# ---- any stream, cut anywhere ------------------------------------------------------------------------------------

_FIELD = st.sampled_from(
    [b"data: ", b"data:", b": ", b":", b"event: ", b"id: 7", b"retry: 1", b"data", b"nonsense: ", b"database: "]
)
_LINES = st.lists(st.tuples(_FIELD, _LINE, st.sampled_from([b"\n", b"\r\n"])), min_size=1, max_size=4)
_EVENTS = st.lists(st.tuples(_LINES, st.sampled_from([b"\n", b"\r\n"])), max_size=6)
_CUTS = st.lists(st.integers(0, 600), max_size=10)


def is_nothing(data: list[bytes]) -> bool:
    return b"\n".join(data).strip() in (b"", b"null", b'""')


def _written(events: Any) -> tuple[bytes, list[bytes]]:
    """The bytes of these events, and the data of each that has any."""
    stream, expected = b"", []
    for lines, end in events:
        data = []
        for field, text, line_end in lines:
            stream += field + text + line_end
            if (field + text).startswith(b"data:"):
                data.append((field + text)[5:].strip())
        stream += end
        if not is_nothing(data):
            expected.append(b"\n".join(data))
    return stream, expected


@given(_EVENTS, st.sampled_from([b"", b"\xef\xbb\xbf"]), _CUTS)
def test_any_stream_is_read_alike_wherever_it_is_cut(events: Any, mark: bytes, cuts: list[int]) -> None:
    stream, expected = _written(events)
    assert read(mark + stream, *cuts) == expected
    blocks = whole(mark + stream, *cuts)
    assert b"".join(blocks) == (stream if len(stream) > 2 else b"")
    assert all(is_boundary(block) for block in blocks)
    kept = [without_empty(block) for block in blocks]
    assert read(b"".join(kept)) == expected
    found = [data for block in kept for _, data in iter_events(block)]
    assert [data for data in found if not is_nothing([data])] == expected


@given(_EVENTS, _CUTS)
def test_only_events_whose_data_is_nothing_are_left_out(events: Any, cuts: list[int]) -> None:
    stream, _ = _written(events)
    blocks = b"".join(without_empty(block) for block in whole(stream, *cuts))
    for lines, end in events:
        event = b"".join(field + text + line_end for field, text, line_end in lines) + end
        data = [(field + text)[5:].strip() for field, text, _ in lines if (field + text).startswith(b"data:")]
        if not data or not is_nothing(data):
            assert event in blocks
    assert not [data for _, data in iter_events(blocks) if data and is_nothing([data])]


@given(st.binary(max_size=300), _CUTS)
def test_any_bytes_at_all_are_read_without_a_fault(stream: bytes, cuts: list[int]) -> None:
    assert read(stream, *cuts) == read(stream)
    assert b"".join(whole(stream, *cuts)) == b"".join(whole(stream))


def test_many_small_events_in_one_block_take_linear_time() -> None:
    block = b"data:\n\n" * 40_000 + b"data: x\n\n"
    started = time.process_time()
    assert without_empty(block) == b"data: x\n\n"
    assert time.process_time() - started < 1
