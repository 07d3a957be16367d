"""The measurements, in rounds: each contender's turn comes once in each."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import contenders
from backends import nginx_backend, node_backend, open_idle_streams, set_streams
from contenders import CONTENDERS, Contender, Surface
from found import Found
from loader import Load, LoadError, load
from payloads import EVENTS
from raw_http import ReplyError
from servers import Request, Server, ServerError, ask, free_port
from streams import first_byte_ms, while_idle

CONNECTIONS = 10
OTHER_CONNECTIONS = (1, 50)
IDLE_STREAMS = 1000
MEMORY_AFTER = (20_000, 100_000, 200_000)

_SETTLE_S = 0.5
_WARM_S = 1.0
_BECOMES_ABLE_S = 5.0
_FEWEST = 100  # requests of a run
_LONGEST_S = 30.0
_ENDING = 16  # characters
_FAULTS = (ServerError, LoadError, ReplyError, OSError, ExceptionGroup)

# Those that are looked at more closely.
_AT_OTHER_CONNECTIONS = (contenders.BARE_HTTPX, contenders.BARE_AIOHTTP, contenders.LLAMASTACK)
_MIXED = _IDLE = (contenders.BARE_AIOHTTP, contenders.LLAMASTACK, contenders.LLAMASTACK_NATIVE)


@dataclass(frozen=True)
class Plan:
    """What to measure, for how long."""

    names: Sequence[str]
    parts: Sequence[str]
    rounds: int
    seconds: float


class Bench:
    """One run of the benchmark; a context manager, whose end stops the backends."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.found: dict[str, Found] = {name: Found() for name in plan.names}
        self._folder = folder
        self._running = ExitStack()

    def __enter__(self) -> Bench:
        """Raises ServerError."""
        with ExitStack() as starting:
            self._streams = starting.enter_context(node_backend(self._made("node")))
            self._chat = self._streams
            if contenders.NGINX:
                self._chat = starting.enter_context(nginx_backend(self._made("nginx-backend")))
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def run(self) -> None:
        """Measure all that is in the plan. What fails is noted beside the rest."""
        present = list(self._present())
        for round_ in range(self.plan.rounds):
            if self._planned("chat"):
                for contender in present:
                    self._plain_turn(contender, round_, (CONNECTIONS,))
            if self._planned("streams", "mixed", "first-byte"):
                for contender in present:
                    self._streams_turn(contender, round_)
            if self._planned("connections"):
                # What a turn above has measured is not measured again.
                others = OTHER_CONNECTIONS if self._planned("chat") else (*OTHER_CONNECTIONS, CONNECTIONS)
                for contender in present:
                    if any(surface in _AT_OTHER_CONNECTIONS for surface in self._alive(contender)):
                        self._plain_turn(contender, round_, others)
        for contender in present:
            for surface in self._alive(contender):
                if self._planned("idle") and surface in _IDLE and surface.stream is not None:
                    self._idle_streams(contender, surface, surface.stream)
                if self._planned("memory") and surface is contenders.LLAMASTACK:
                    self._memory(contender, surface)

    def _planned(self, *parts: str) -> bool:
        return bool(set(parts) & set(self.plan.parts))

    def _present(self) -> Iterator[Contender]:
        for contender in CONTENDERS:
            if self._alive(contender):
                reason = contender.missing()
                for surface in self._alive(contender):
                    self.found[surface.name].missing = reason
                if reason is None:
                    yield contender

    def _alive(self, contender: Contender) -> list[Surface]:
        return [s for s in contender.surfaces if s.name in self.found and not self.found[s.name].dead]

    def _plain_turn(self, contender: Contender, round_: int, counts: Sequence[int]) -> None:
        with self._noting_start(contender, round_), self._started(contender, self._chat) as server:
            rss = server.rss_bytes()
            for surface in self._alive(contender):
                if counts != (CONNECTIONS,) and surface not in _AT_OTHER_CONNECTIONS:
                    continue
                found = self.found[surface.name]
                if contender.launch is not None and CONNECTIONS in counts:
                    found.add("ready_s", round_, server.ready_s)
                    found.add("rss_mb", round_, rss / 2**20)
                whole = self._answers(surface, server, surface.chat, round_)
                if whole is None:
                    continue
                with self._noting(surface, "plain replies", round_):
                    seconds = self._warm(server, surface.chat, whole)
                    for count in counts:
                        run, cpu_s = self._load(server, surface.chat, whole, count, seconds)
                        found.add(f"chat_per_s_{count}", round_, run.per_s)
                        found.add(f"chat_busy_{count}", round_, cpu_s / run.seconds)
                        found.add(f"chat_p50_ms_{count}", round_, run.p50_ms)
                        found.add(f"chat_p99_ms_{count}", round_, run.p99_ms)
                        found.add(f"chat_cpu_us_{count}", round_, cpu_s / run.requests * 1e6)
                        _progress(surface, f"{run.per_s:,.0f} req/s, connections: {count}", round_)

    def _streams_turn(self, contender: Contender, round_: int) -> None:
        with self._noting_start(contender, round_), self._started(contender, self._streams) as server:
            for surface in self._alive(contender):
                if surface.stream is None:
                    continue
                set_streams(self._streams, "fast")
                whole = self._answers(surface, server, surface.stream, round_)
                if whole is None:
                    continue
                with self._noting(surface, "streams", round_):
                    seconds = self._warm(server, surface.stream, whole)
                    if self._planned("streams"):
                        self._events(surface, surface.stream, server, "fast", whole, seconds, round_)
                    if self._planned("mixed") and surface in _MIXED:
                        self._events(surface, surface.stream, server, "mixed", whole, seconds, round_)
                with self._noting(surface, "first byte", round_):
                    if self._planned("first-byte"):
                        self._first_byte(surface, surface.stream, server, round_)

    def _events(
        self, surface: Surface, request: Request, server: Server, shape: str, whole: str, seconds: float, round_: int
    ) -> None:
        set_streams(self._streams, shape)
        run, cpu_s = self._load(server, request, whole, CONNECTIONS, seconds)
        # The backend's events, however many the contender makes of them.
        events = run.requests * EVENTS
        found = self.found[surface.name]
        found.add(f"{shape}_per_s", round_, events / run.seconds)
        found.add(f"{shape}_busy", round_, cpu_s / run.seconds)
        found.add(f"{shape}_cpu_us", round_, cpu_s / events * 1e6)
        _progress(surface, f"{events / run.seconds:,.0f} events/s, {shape}", round_)

    def _first_byte(self, surface: Surface, request: Request, server: Server, round_: int) -> None:
        set_streams(self._streams, "paced")
        took = first_byte_ms(server.port, request, max(5, round(10 * self.plan.seconds)))
        self.found[surface.name].add("first_byte_ms", round_, took)
        _progress(surface, f"{took:.2f} ms to the first byte", round_)

    def _idle_streams(self, contender: Contender, surface: Surface, request: Request) -> None:
        # A server of its own for each: memory that was freed before would be used again, and not be seen.
        with self._noting(surface, "idle streams"), self._started(contender, self._streams) as server:
            set_streams(self._streams, "fast")
            _right(server.port, request)
            set_streams(self._streams, "idle")
            before = server.rss_bytes()
            rss = while_idle(server.port, request, IDLE_STREAMS, server.rss_bytes)
            kib = (rss - before) / IDLE_STREAMS / 1024
            self.found[surface.name].add("idle_kib", 0, kib)
            _progress(surface, f"{kib:.1f} KiB per idle stream")
            time.sleep(2 * _SETTLE_S)
            left = open_idle_streams(self._streams)
            if left:
                raise ServerError(f"{left} of its streams from the backend are open after the clients have left")

    def _memory(self, contender: Contender, surface: Surface) -> None:
        with self._noting(surface, "memory"), self._started(contender, self._chat) as server:
            whole = _right(server.port, surface.chat)
            found = self.found[surface.name]
            found.add("memory_mb_0", 0, server.rss_bytes() / 2**20)
            sent, per_s = 0, math.inf  # until one second has told
            for aim in MEMORY_AFTER:
                while sent < aim:
                    # Not above the aim by more than a second's worth.
                    seconds = max(1.0, min(20.0, (aim - sent) // per_s))
                    run, _ = self._load(server, surface.chat, whole, CONNECTIONS, seconds)
                    sent, per_s = sent + run.requests, run.per_s
                found.add(f"memory_mb_{aim}", 0, server.rss_bytes() / 2**20)
                _progress(surface, f"{found.values[f'memory_mb_{aim}'][0]:.1f} MB after {sent:,} requests")

    @contextmanager
    def _started(self, contender: Contender, backend: Server) -> Iterator[Server]:
        """The contender in front of the backend, ready and idle. Raises ServerError."""
        if contender.launch is None:
            yield backend
            return
        port = free_port()
        folder = self._made(contender.surfaces[0].name)
        with Server(contender.launch(backend.url, port, folder), port, folder / "log") as server:
            time.sleep(_SETTLE_S)
            yield server

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder

    @contextmanager
    def _noting_start(self, contender: Contender, round_: int) -> Iterator[None]:
        try:
            yield
        except (ServerError, OSError) as error:
            for surface in self._alive(contender):
                self.found[surface.name].dead = True
                self._fault(surface, "start", round_, error)

    @contextmanager
    def _noting(self, surface: Surface, part: str, round_: int | None = None) -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            self._fault(surface, part, round_, error)

    def _answers(self, surface: Surface, server: Server, request: Request, round_: int) -> str | None:
        """The body of a right reply; none where there is none, which is noted."""
        try:
            return _right(server.port, request)
        except (ServerError, OSError) as error:
            self.found[surface.name].dead = True
            self._fault(surface, "one request", round_, error)
            return None

    def _fault(self, surface: Surface, part: str, round_: int | None, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        where = part if round_ is None else f"{part}, round {round_ + 1}"
        self.found[surface.name].faults.append(f"{where}: {error}")
        _progress(surface, f"FAILED: {part}: {error}", round_)

    def _warm(self, server: Server, request: Request, whole: str) -> float:
        """Load before the measured one, each reply of which must end as the whole one does.

        Returns the seconds that a run should last: the plan's, and more where few requests would be answered in them.
        Raises LoadError.
        """
        ending = whole[-_ENDING:]
        run = load(server.port, request, connections=CONNECTIONS, seconds=_WARM_S, folder=self._folder, ending=ending)
        if run.requests:
            _complain(run)
        needed = _FEWEST / run.per_s if run.requests else _LONGEST_S
        return max(self.plan.seconds, min(needed, _LONGEST_S))

    def _load(
        self, server: Server, request: Request, whole: str, connections: int, seconds: float
    ) -> tuple[Load, float]:
        """A run, and the CPU time in seconds that it took of the server. Raises LoadError where any reply was wrong."""
        before = server.cpu_s()
        run = load(server.port, request, connections=connections, seconds=seconds, folder=self._folder)
        cpu_s = server.cpu_s() - before
        _complain(run)
        if run.received_bytes < run.requests * len(whole.encode()):
            raise LoadError(f"{run.received_bytes} bytes are too few for {run.requests} replies")
        return run, cpu_s


def _complain(run: Load) -> None:
    complaint = run.complaint()
    if complaint:
        raise LoadError(complaint)


def _right(port: int, request: Request) -> str:
    """The body of a right reply. A server may need a moment after its first 200. Raises ServerError, OSError."""
    end = time.perf_counter() + _BECOMES_ABLE_S
    while True:
        try:
            return ask(port, request)
        except ServerError:
            if time.perf_counter() > end:
                raise
            time.sleep(0.1)


def _progress(surface: Surface, what: str, round_: int | None = None) -> None:
    where = "after" if round_ is None else f"round {round_ + 1}"
    print(f"{where}: {surface.name}: {what}", file=sys.stderr, flush=True)
