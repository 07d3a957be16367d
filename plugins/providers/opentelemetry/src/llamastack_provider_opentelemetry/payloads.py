"""What is sent: a serialized request of one of OTLP's three services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

Signal = Literal["traces", "logs", "metrics"]
_T = TypeVar("_T")


class Payload(NamedTuple):
    """A request to the service of one signal.

    body: the serialized message, not compressed. items: how many spans, log records or data points are in it.
    """

    signal: Signal
    body: bytes
    items: int


def in_payloads(
    signal: Signal, items: Sequence[_T], encode: Callable[[Sequence[_T]], bytes], most_bytes: int
) -> list[Payload]:
    """The items in as many requests as it takes for none to have more than `most_bytes`.

    A single item that is larger has a request of its own, which the collector may refuse.
    """
    if not items:
        return []
    body = encode(items)
    if len(body) <= most_bytes or len(items) == 1:
        return [Payload(signal, body, len(items))]
    middle = len(items) // 2
    return [
        payload
        for half in (items[:middle], items[middle:])
        for payload in in_payloads(signal, half, encode, most_bytes)
    ]
