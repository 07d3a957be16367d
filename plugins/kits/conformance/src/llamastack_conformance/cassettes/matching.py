"""Which recorded answer belongs to a request: by method, path, query and body, without what changes from run to run.

Ids, times and local addresses change. A request matches if all else is the same; those of the recording are replaced by
those of the replay in the answers, so that an id that the provider has made comes back to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from llamastack_conformance.cassettes.cassette import Cassette, End, Recorded

_CHANGING = re.compile(
    r"(?<![0-9A-Za-z.])(?:"
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"  # a UUID (RFC 9562)
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"  # a time (RFC 3339)
    r"|\d{10,}(?:\.\d+)?"  # seconds, or parts of them, since 1970
    r"|[0-9a-f]{8,}"  # a random or hashed name
    r"|(?:127\.0\.0\.1|localhost):\d{2,5}"
    r")(?![0-9A-Za-z])"
)
_SEED = re.compile(r'(?<="seed":)-?\d+')
_PLACE = "\0"
_WAITING_AT_MOST = 20


class Key(NamedTuple):
    """A request without what changes, and what changes in it, in its order."""

    request: tuple[str, str, str]
    changing: tuple[str, ...]


def key_of(method: str, target: str, body: bytes) -> Key:
    """The key of a request. The order of the query, and of names in JSON, does not count."""
    parts = urlsplit(target)
    query = json.dumps(sorted(parse_qsl(parts.query, keep_blank_values=True)), ensure_ascii=False)
    texts = [f"{unquote(parts.path)}\n{query}", _canonical(body)]
    changing = tuple(found for text in texts for found in _CHANGING.findall(text))
    address, content = (_SEED.sub("0", _CHANGING.sub(_PLACE, text)) for text in texts)
    return Key((method, address, content), changing)


def _canonical(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return body.decode("utf-8", errors="backslashreplace")


@dataclass(slots=True)
class _Entry:
    """place: of the exchange in the order of its check."""

    place: int
    recorded: Recorded
    key: Key
    uses: int = 0

    def use(self) -> None:
        """Count a request that got this answer."""
        self.uses += 1


@dataclass
class _Scene:
    """The exchanges of one check. waited: how often each request was answered as before, to wait for another one."""

    entries: list[_Entry]
    by_request: dict[tuple[str, str, str], list[_Entry]] = field(default_factory=dict)
    waited: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in self.entries:
            self.by_request.setdefault(entry.key.request, []).append(entry)

    def happened_between(self, first: _Entry, second: _Entry) -> bool:
        """Whether, as far as other requests were recorded between these two, one of them has come."""
        between = [e for e in self.entries[first.place + 1 : second.place] if e.key.request != first.key.request]
        return not between or any(entry.uses for entry in between)


class Player:
    """Finds the answers.

    In a check equal requests get their answers in the order of the recording, the last one again and again: how often a
    provider polls is a matter of time. A request that was recorded in another check only is of a stack's start or end.
    """

    def __init__(self, cassette: Cassette) -> None:
        self._scenes = {
            name: _Scene(
                [_Entry(at, each, key_of(each.method, each.target, each.body)) for at, each in enumerate(all_)]
            )
            for name, all_ in cassette.checks.items()
        }
        self._order = list(self._scenes)
        self._now: dict[str, str] = {}
        self._then: dict[str, str] = {}
        self.check = ""
        self.ran: set[str] = set()

    def begin(self, check: str) -> None:
        """The requests from now on are those of this check."""
        self.check = check
        self.ran.add(check)

    def find(self, key: Key) -> Recorded | None:
        """The recorded exchange of a request, its answer with the ids of this run; None if there is none."""
        own = self._scenes.get(self.check)
        if own is not None and (found := own.by_request.get(key.request)):
            return self._use(own, key, found)
        for name in self._others():
            scene = self._scenes[name]
            if found := scene.by_request.get(key.request):
                return self._use(scene, key, found)
        return None

    def _others(self) -> list[str]:
        """The checks before this one, the nearest first, then those after it."""
        here = self._order.index(self.check) if self.check in self._order else len(self._order)
        return [*reversed(self._order[:here]), *self._order[here + 1 :]]

    def _use(self, scene: _Scene, key: Key, found: Sequence[_Entry]) -> Recorded:
        ended = [entry for entry in found if entry.recorded.end is not End.left] or list(found)
        best = min(self._distance(entry, key) for entry in ended)
        equal = [entry for entry in ended if self._distance(entry, key) == best]
        entry = self._next(scene, equal)
        entry.use()
        for then, now in zip(entry.key.changing, key.changing, strict=True):
            self._now[then] = now
            self._then[now] = then
        return self._translated(entry.recorded)

    def _next(self, scene: _Scene, equal: Sequence[_Entry]) -> _Entry:
        """The first that was not used; the last used one until something happens that came between the two."""
        used = [entry for entry in equal if entry.uses]
        free = next((entry for entry in equal if not entry.uses), None)
        if free is None:
            return equal[-1]
        if used and used[-1].recorded.answer != free.recorded.answer and not scene.happened_between(used[-1], free):
            waited = scene.waited.get(free.key.request, 0)
            if waited < _WAITING_AT_MOST:
                scene.waited[free.key.request] = waited + 1
                return used[-1]
        return free

    def _distance(self, entry: _Entry, key: Key) -> tuple[int, int]:
        """(ids that are known to be another one's, ids that are not the same)."""
        pairs = list(zip(entry.key.changing, key.changing, strict=True))
        wrong = sum(self._now.get(then, now) != now or self._then.get(now, then) != then for then, now in pairs)
        return wrong, sum(then != now for then, now in pairs)

    def _translated(self, recorded: Recorded) -> Recorded:
        pieces = [self._of_this_run(piece) for piece in recorded.pieces]
        return Recorded(
            recorded.method,
            recorded.target,
            recorded.body,
            recorded.status,
            recorded.headers,
            pieces,
            recorded.framed,
            recorded.end,
        )

    def _of_this_run(self, piece: bytes) -> bytes:
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            return piece
        return _CHANGING.sub(lambda found: self._now.get(found[0], found[0]), text).encode()

    def unused(self) -> list[str]:
        """The requests of checks that ran which never came: `check: METHOD path`."""
        return [
            f"{name}: {found[0].recorded.method} {found[0].recorded.target}"
            for name, scene in self._scenes.items()
            if name in self.ran
            for found in scene.by_request.values()
            if not any(entry.uses for entry in found)
        ]
