"""What was found, as tables."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import contenders
from contenders import SURFACES
from found import Found, median_beside
from measure import CONNECTIONS, IDLE_STREAMS, MEMORY_AFTER, OTHER_CONNECTIONS

_BESIDE = {surface.name: surface.beside for surface in SURFACES}
_ERRORS = "**ERRORS**"
_BUSY = 0.8


@dataclass(frozen=True)
class Column:
    """A column of a table: a measure, and where it is beside the bare aiohttp app's, how they are taken together."""

    title: str
    measure: str
    digits: int
    beside: Callable[[float, float], float] | None = None
    busy: str | None = None
    """The measure that tells how busy the server was, in cores, where the figure is a rate."""

    def value(self, found: Mapping[str, Found], name: str) -> float | None:
        if self.beside is None:
            return found[name].median(self.measure)
        other = _BESIDE[name]
        if other not in found:
            return None
        return median_beside(found[name], found[other], self.measure, self.beside)

    def shown(self, found: Mapping[str, Found], name: str) -> str:
        value = self.value(found, name)
        busy = found[name].median(self.busy) if self.busy else None
        mark = "~" if value is not None and busy is not None and busy < _BUSY else ""
        return mark + number(value, self.digits)


@dataclass(frozen=True)
class Aim:
    """What a figure should be, at least or at most."""

    limit: float
    at_least: bool = False

    def judged(self, value: float | None, digits: int) -> str:
        sign = "≥" if self.at_least else "≤"
        text = f"{sign} {number(self.limit, digits)}"
        if value is None:
            return text
        reached = value >= self.limit if self.at_least else value <= self.limit
        return f"{text}: {'yes' if reached else 'NO'}"


CHAT_RATIO = Column("x bare aiohttp", f"chat_per_s_{CONNECTIONS}", 2, operator.truediv)
P99_RATIO = Column("x its p99", f"chat_p99_ms_{CONNECTIONS}", 2, operator.truediv)
CPU_RATIO = Column("x its CPU", f"chat_cpu_us_{CONNECTIONS}", 2, operator.truediv)
STREAM_RATIO = Column("x bare aiohttp", "fast_per_s", 2, operator.truediv)
FIRST_BYTE_MORE = Column("ms over bare aiohttp", "first_byte_ms", 2, operator.sub)
READY = Column("ready s", "ready_s", 2)
RSS = Column("RSS MB", "rss_mb", 0)

COLUMNS = (
    Column("chat req/s", f"chat_per_s_{CONNECTIONS}", 0, busy=f"chat_busy_{CONNECTIONS}"),
    CHAT_RATIO,
    Column("p50 ms", f"chat_p50_ms_{CONNECTIONS}", 2),
    Column("p99 ms", f"chat_p99_ms_{CONNECTIONS}", 2),
    P99_RATIO,
    Column("server CPU us/req", f"chat_cpu_us_{CONNECTIONS}", 0),
    CPU_RATIO,
    Column("SSE events/s", "fast_per_s", 0, busy="fast_busy"),
    STREAM_RATIO,
    Column("server CPU us/event", "fast_cpu_us", 2),
    Column("x its CPU", "fast_cpu_us", 2, operator.truediv),
    Column("first byte p50 ms", "first_byte_ms", 2),
    FIRST_BYTE_MORE,
    READY,
    RSS,
)
MIXED_COLUMNS = (
    Column("SSE events/s", "mixed_per_s", 0, busy="mixed_busy"),
    Column("x bare aiohttp", "mixed_per_s", 2, operator.truediv),
    Column("server CPU us/event", "mixed_cpu_us", 2),
    Column("x its CPU", "mixed_cpu_us", 2, operator.truediv),
)
AIMS: dict[str, dict[Column, Aim]] = {
    contenders.LLAMASTACK.name: {
        CHAT_RATIO: Aim(0.8, at_least=True),
        P99_RATIO: Aim(1.5),
        CPU_RATIO: Aim(1.2),
        STREAM_RATIO: Aim(0.8, at_least=True),
        FIRST_BYTE_MORE: Aim(1.0),
        READY: Aim(1.0),
        RSS: Aim(80),
    },
    **{
        surface.name: {CPU_RATIO: Aim(1.2)}
        for surface in (
            contenders.LLAMASTACK_BY_ID,
            contenders.LLAMASTACK_BY_ALIAS,
            contenders.LLAMASTACK_LARGE,
            contenders.LLAMASTACK_LARGE_BY_ID,
        )
    },
    contenders.LLAMASTACK_NATIVE.name: {CHAT_RATIO: Aim(0.5, at_least=True)},
}
IDLE_AIM = Aim(100)


def number(value: float | None, digits: int) -> str:
    """A figure for people; small ones keep two that count."""
    if value is None:
        return "-"
    if digits == 0 and value and abs(value) < 10:
        digits = 1
    if digits == 2 and 0 < abs(value) < 0.1:
        digits = 3
    return f"{value:,.{digits}f}"


Row = Sequence[str]


def render(rows: Sequence[Row], *, markdown: bool) -> str:
    """A table whose first row is its head."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append(f"| {' | '.join([first, *others])} |" if markdown else "  ".join(cells).rstrip())
    lines.insert(1, "|---" + "|---:" * (len(widths) - 1) + "|" if markdown else "-" * len(lines[0]))
    return "\n".join(lines)


def report(found: Mapping[str, Found], *, rounds: int, seconds: float, note: str, markdown: bool) -> str:
    """All tables, and what went wrong."""
    parts = [
        f"{CONNECTIONS} connections, medians of {rounds} interleaved rounds of {seconds:g} s, of ratios too. "
        f"{note} ~: the server took under {_BUSY:.0%} of a core, so that loader, backend or other processes set the "
        "rate; its CPU time tells more then.",
        render(_main(found), markdown=markdown),
    ]
    for title, rows in (
        ("Plain replies, req/s by connections", _connections(found)),
        ("Streams whose events come one by one, those of all connections by turns", _mixed(found)),
        ("Memory", _memory(found)),
    ):
        if len(rows) > 1:
            parts.append(f"{title}:\n\n{render(rows, markdown=markdown)}")
    faults = [f"{_ERRORS} {name}: {fault}" for name, its in found.items() for fault in its.faults]
    return "\n\n".join([*parts, *faults])


def _named(found: Mapping[str, Found]) -> list[contenders.Surface]:
    return [surface for surface in SURFACES if surface.name in found]


def _title(surface: contenders.Surface, found: Mapping[str, Found]) -> str:
    return f"{surface.title} {_ERRORS}" if found[surface.name].faults else surface.title


def _main(found: Mapping[str, Found]) -> list[Row]:
    columns = [c for c in COLUMNS if any(c.value(found, name) is not None for name in found)]
    rows: list[Row] = [["", *(column.title for column in columns)]]
    for surface in _named(found):
        its = found[surface.name]
        if its.missing:
            rows.append([f"{surface.title}: {its.missing}", *("-" for _ in columns)])
            continue
        rows.append([_title(surface, found), *(column.shown(found, surface.name) for column in columns)])
        aims = AIMS.get(surface.name, {})
        judged = [aims[c].judged(c.value(found, surface.name), c.digits) if c in aims else "" for c in columns]
        if any(judged):
            rows.append(["aim", *judged])
    return rows


def _connections(found: Mapping[str, Found]) -> list[Row]:
    counts = sorted({CONNECTIONS, *OTHER_CONNECTIONS})
    rows: list[Row] = [["", *(f"{n}, x bare aiohttp" for n in counts)]]
    for surface in _named(found):
        if f"chat_per_s_{OTHER_CONNECTIONS[0]}" not in found[surface.name].values:
            continue
        cells = []
        for measure in (f"chat_per_s_{count}" for count in counts):
            rate, ratio = Column("", measure, 0), Column("", measure, 2, operator.truediv)
            cells.append(f"{rate.shown(found, surface.name)}, {ratio.shown(found, surface.name)}")
        rows.append([_title(surface, found), *cells])
    return rows


def _mixed(found: Mapping[str, Found]) -> list[Row]:
    rows: list[Row] = [["", *(column.title for column in MIXED_COLUMNS)]]
    for surface in _named(found):
        if "mixed_per_s" in found[surface.name].values:
            rows.append([_title(surface, found), *(c.shown(found, surface.name) for c in MIXED_COLUMNS)])
    return rows


def _memory(found: Mapping[str, Found]) -> list[Row]:
    rows: list[Row] = [["", "measured", "aim"]]
    for surface in _named(found):
        its = found[surface.name]
        kib = its.median("idle_kib")
        if kib is not None:
            ours = surface in (contenders.LLAMASTACK, contenders.LLAMASTACK_NATIVE)
            aim = IDLE_AIM.judged(kib, 0) if ours else ""
            rows.append([f"{surface.title}: KiB per idle stream, of {IDLE_STREAMS:,}", number(kib, 1), aim])
    its = found.get(contenders.LLAMASTACK.name, Found())
    for after in (0, *MEMORY_AFTER):
        rss = its.median(f"memory_mb_{after}")
        if rss is not None:
            title = f"{contenders.LLAMASTACK.title}: RSS MB after {after:,} requests"
            rows.append([title, number(rss, 1), "flat" if after == MEMORY_AFTER[-1] else ""])
    return rows
