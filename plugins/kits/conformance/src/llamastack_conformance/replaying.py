"""Recorded answers of a backend, to be injected again: as they were, with other text, in other pieces.

The frames are those of HTTP/1.1 (RFC 9112): a length, or chunks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from llamastack_conformance.backend_tap import Exchange, Injected, Request, Tap
from llamastack_conformance.watching import becomes

_DATA = b"data: "
_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d+)[ \t]*\r?$")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding:.*chunked")
_FRAMING = re.compile(rb"(?im)^(?:content-length|transfer-encoding|connection):[^\r\n]*\r\n")
_CLOSE = re.compile(rb"(?im)^connection:[ \t]*close[ \t]*\r\n")
_ENCODED = re.compile(rb"(?im)^content-encoding:")
_SUCCESS = re.compile(rb"HTTP/1\.1 2")
_COMPLETE_BY_S = 2.0
_MOST_KEPT_BYTES = 4_000_000
_T = TypeVar("_T")


def head_of(message: bytes) -> bytes:
    """Status line and headers, without the line break at their end."""
    return message.partition(_HEAD_END)[0]


def body_of(head: bytes, content: bytes) -> bytes:
    """The body in what follows the head; without the frames of a chunked transfer (RFC 9112, 7.1)."""
    if not _CHUNKED.search(head):
        return content
    body, rest = b"", content
    while rest:
        size_line, _, rest = rest.partition(b"\r\n")
        try:
            size = int(size_line.partition(b";")[0], 16)
        except ValueError:
            break
        body += rest[:size]
        rest = rest[size + 2 :]
    return body


def is_complete(answer: bytes) -> bool:
    """Whether an answer has come to its end. Without a length and chunks it counts as complete."""
    head, end, content = answer.partition(_HEAD_END)
    if not end:
        return False
    if _CHUNKED.search(head):
        return content.endswith(b"0\r\n\r\n")
    length = _LENGTH.search(head)
    return length is None or len(content) >= int(length[1])


def is_text(answer: bytes) -> bool:
    """Whether the body is text as it stands: neither compressed nor a binary format."""
    head, _, content = answer.partition(_HEAD_END)
    if _ENCODED.search(head):
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def reframed(answer: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The same answer with a changed body, which ends with the connection."""
    head, _, content = answer.partition(_HEAD_END)
    kept = _FRAMING.sub(b"", head + b"\r\n")
    return kept + b"connection: close\r\n\r\n" + change(body_of(head, content))


def changed_events(answer: bytes, change: Callable[[list[Any]], bool]) -> bytes | None:
    """The same answer with other JSON: its body is one value, or has one in each line, as events or alone.

    change: changes the objects and lists of the lines in place; None is returned if it returns False.
    """
    head, _, content = answer.partition(_HEAD_END)
    lines = body_of(head, content).split(b"\n")
    bodies = [loaded(line.removeprefix(_DATA)) for line in lines]
    if not change([body for body in bodies if body is not None]):
        return None
    new = [line if body is None else _line(line, body) for line, body in zip(lines, bodies, strict=True)]
    return reframed(answer, lambda _: b"\n".join(new))


def _line(line: bytes, body: Any) -> bytes:
    return (_DATA if line.startswith(_DATA) else b"") + json.dumps(body).encode()


def loaded(text: str | bytes) -> Any:
    """The JSON object or list in a text; None if it is no such JSON."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def target_of(request: Request) -> bytes:
    """Method and path of a request."""
    return request.head.partition(b" HTTP/")[0]


async def completed(exchange: Exchange) -> bytes:
    """The answer, once it is complete: a provider may return before it has read the end of a stream."""
    await becomes(lambda: is_complete(bytes(exchange.answer)), _COMPLETE_BY_S)
    return bytes(exchange.answer)


class KnownAnswers:
    """Answers of the backend to each kind of call, so that a model computes once for all checks of a provider."""

    def __init__(self) -> None:
        self._inject: WeakKeyDictionary[object, dict[str, Callable[[Request], bytes | None]]] = WeakKeyDictionary()

    async def prime(self, subject: object, tap: Tap, name: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Make a call of the kind `name`, and let the tap answer later ones in the same way. Returns its result."""
        known = self._inject.setdefault(subject, {})
        tap.disturb(inject=known.get(name))
        result = await call()
        if name not in known:
            known[name] = await replayed(tap)
            tap.disturb(inject=known[name])
        return result


def instead_of_the_last(tap: Tap, injected: Injected) -> Callable[[Request], Injected]:
    """Answers requests like the latest one that had a body; others go on, such as one that makes a prompt."""
    sent = [request for request in tap.requests if request.body]
    target = target_of(sent[-1]) if sent else b""
    return lambda request: injected if target_of(request) == target else None


def _ended(answer: bytes) -> bytes:
    """The answer with its last chunk (RFC 9112, 7.1), if that alone is missing, and without `connection: close`.

    A backend sends that with the last of so many answers on a connection; it says nothing about the next connection.
    """
    head, _, content = answer.partition(_HEAD_END)
    if _LENGTH.search(head) or _CHUNKED.search(head):
        head = _CLOSE.sub(b"", head + b"\r\n").removesuffix(b"\r\n")
        answer = head + _HEAD_END + content
    return answer + _LAST_CHUNK if _CHUNKED.search(head) and _ends_with_a_chunk(content) else answer


def _ends_with_a_chunk(content: bytes) -> bool:
    """Whether the content is whole chunks, of which none is the last."""
    rest = content
    while rest:
        size_line, _, rest = rest.partition(b"\r\n")
        try:
            size = int(size_line.partition(b";")[0], 16)
        except ValueError:
            return False
        if size == 0 or rest[size : size + 2] != b"\r\n":
            return False
        rest = rest[size + 2 :]
    return True


async def replayed(tap: Tap) -> Callable[[Request], bytes | None]:
    """Answers requests as the latest recorded exchange of the same method and path was answered; others go on.

    These are those of the call's last request: a provider may have a prompt made by a request of its own before it. The
    provider has read what it needs; where it left before the end of a slow stream, the end is added.
    """
    sent = [exchange for exchange in tap.exchanges if exchange.request.body]
    answers = {target_of(exchange.request): _ended(await completed(exchange)) for exchange in sent[-1:]}
    return lambda request: answers.get(target_of(request))


class KeptExchanges:
    """Exchanges with the backend of a provider that cost a model much, for checks that make the same call."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[object, list[Exchange]] = WeakKeyDictionary()

    def keep(self, subject: object, exchanges: Iterable[Exchange]) -> None:
        """Keep exchanges, if they are small."""
        found = list(exchanges)
        if sum(len(each.answer) for each in found) <= _MOST_KEPT_BYTES:
            self._kept.setdefault(subject, []).extend(found)

    def of(self, subject: object) -> list[Exchange]:
        """The exchanges that were kept."""
        return self._kept.get(subject, [])


async def repeated(exchanges: Iterable[Exchange]) -> Callable[[Request], bytes | None]:
    """Answers each request that equals one of these as that one was answered, if it always was in the same way.

    Others go on. Only whole answers that are no errors are given again.
    """
    answers: dict[tuple[bytes, bytes], set[bytes]] = {}
    for exchange in exchanges:
        answers.setdefault(_what_is_asked(exchange.request), set()).add(await completed(exchange))
    known = {asked: given.pop() for asked, given in answers.items() if len(given) == 1}
    known = {asked: given for asked, given in known.items() if is_complete(given) and _SUCCESS.match(given)}
    return lambda request: known.get(_what_is_asked(request))


def _what_is_asked(request: Request) -> tuple[bytes, bytes]:
    return target_of(request), request.body
