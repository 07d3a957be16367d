"""Server-sent events, however the bytes of a stream are cut into blocks."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack.provider.errors import BackendError
from llamastack.provider.sse import data_of, event_data, whole_events


async def _blocks(stream: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    places = sorted({0, *(cut % (len(stream) + 1) for cut in cuts), len(stream)})
    for start, end in itertools.pairwise(places):
        yield stream[start:end]


def read(stream: bytes, *cuts: int) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [data async for data in event_data(_blocks(stream, list(cuts)))]

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
    assert read(stream, *cuts) == [event.strip() for event in events]


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    assert read(b"\xef\xbb\xbfdata: a\n\n") == [b"a"]


def test_a_long_event_in_many_blocks_and_one_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    long = b"x" * 300_000
    assert read(b"data: " + long + b"\n\n", *range(0, 300_000, 64)) == [long]
    monkeypatch.setattr("llamastack.provider.sse._LONGEST", 1000)
    with pytest.raises(BackendError, match="longer than 1000 bytes"):
        read(b"data: " + long, *range(0, 300_000, 64))


def whole(stream: bytes, *cuts: int) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [block async for block in whole_events(_blocks(stream, list(cuts)))]

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
    found = list(data_of(stream))
    assert [data for _, data in found] == [event.strip() for event in events]
    assert [place for place, _ in found][-1:] == ([len(stream)] if events else [])


def test_an_event_without_an_end_is_too_long_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamastack.provider.sse._LONGEST", 1000)
    with pytest.raises(BackendError, match="longer than 1000 bytes"):
        whole(b"data: " + b"x" * 5000, *range(0, 5000, 64))
