"""Times, tokens, costs and names of spans, for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import wcwidth

from llamastack.api.base import JsonObject
from llamastack.api.telemetry import Span, TraceSummary
from llamastack.provider.control_characters import one_line
from llamastack_telemetry import conventions as names

_SHORTEST = 8


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return len(text) if text.isascii() else wcwidth.width(text)


def cut(text: str, width: int, mark: str) -> str:
    """The text in at most `width` columns, with `mark` at its end if it is cut."""
    if cells(text) <= width:
        return text
    if width <= cells(mark):
        return wcwidth.clip(text, 0, max(width, 0))
    return wcwidth.clip(text, 0, width - cells(mark)) + mark


def padded(text: str, width: int) -> str:
    """The text with spaces up to `width` columns."""
    return text + " " * (width - cells(text))


def duration(seconds: float) -> str:
    """Three digits and a unit: `1.24 s`, `310 ms`, `2 min 5 s`."""
    if seconds < 0.9995e-3:
        return f"{max(seconds, 0) * 1e6:.0f} us"
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1e3)} ms"
    if seconds < 59.95:
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def length(span: Span | TraceSummary) -> str:
    """How long it took; "" if that is not known, "?" if it ends before it starts, as clients may log it."""
    if span.end_time is None:
        return ""
    return "?" if span.end_time < span.start_time else duration((span.end_time - span.start_time).total_seconds())


def local_time(moment: datetime) -> str:
    """The date and time of this machine's zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def time_of_day(moment: datetime) -> str:
    """The same, without the date if it is today's."""
    text = local_time(moment)
    return text.removeprefix(f"{datetime.now().astimezone():%Y-%m-%d} ")


def tokens(read: float | None, wrote: float | None) -> str:
    """`16 in, 8 out`; "" if neither is known."""
    return ", ".join(f"{count:,.0f} {way}" for count, way in ((read, "in"), (wrote, "out")) if count is not None)


def cost(amount: float | None, currency: str = "") -> str:
    """Six decimals at most; "" if there is no price."""
    if amount is None:
        return ""
    text = "<0.000001" if 0 < amount < 1e-6 else f"{amount:.6f}".rstrip("0").rstrip(".")
    return f"{text} {currency}".strip()


def details(span: Span) -> str:
    """Tokens, the time to the first token, cost, provider: what the span knows of them."""
    attributes = span.attributes
    read, wrote = _number(attributes, names.INPUT_TOKENS), _number(attributes, names.OUTPUT_TOKENS)
    parts = []
    if read is not None or wrote is not None:
        parts.append(
            ", ".join(f"{count:g} {way}" for count, way in ((read, "in"), (wrote, "out")) if count is not None)
        )
    first = _number(attributes, names.TIME_TO_FIRST_CHUNK)
    if first is not None:
        parts.append(f"first {duration(first)}")
    price = _number(attributes, names.COST)
    if price is not None:
        currency = attributes.get(names.COST_CURRENCY)
        parts.append(cost(price, one_line(currency) if isinstance(currency, str) else ""))
    provider = attributes.get(names.PROVIDER_ID)
    if isinstance(provider, str):
        parts.append(one_line(provider))
    return "  ".join(part for part in parts if part)


def _number(attributes: JsonObject, name: str) -> float | None:
    value = attributes.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def short_ids(ids: Sequence[str]) -> list[str]:
    """The shortest ends, of one length, by which the ids differ. Beginnings are alike: they are the time."""
    length = _SHORTEST
    longest = max(map(len, ids), default=0)
    while length < longest and len({each[-length:] for each in ids}) < len(set(ids)):
        length += 1
    return [each[-length:] for each in ids]
