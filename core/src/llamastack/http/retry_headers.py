"""Reads the headers of an error that concern retries."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping

from llamastack.provider.errors import LONGEST_WAIT_S


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before a retry, from 0 to a day; None if the backend does not say.

    `retry-after-ms` counts, which OpenAI's clients know, else `Retry-After` as a number or as a date (RFC 9110,
    10.2.3).
    """
    exact = _seconds(headers.get("retry-after-ms"))
    if exact is not None:
        return _clamped(exact / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is None:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError, OSError):
            return None
    return _clamped(seconds)


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None and len(value) < 400 else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _clamped(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_WAIT_S)


def should_retry_of(headers: Mapping[str, str]) -> bool | None:
    """The value of `x-should-retry`, which OpenAI's clients obey; None if it is missing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())
