"""What a call of a model costs, from its tokens. Amounts are decimal numbers, so nothing is lost by rounding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Context, Decimal, localcontext
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

from llamastack_telemetry.price_settings import DEFAULT_CURRENCY, PriceEntry, Prices

_MILLION = Decimal(1_000_000)
_EXACT = Context(prec=60)
"""Digits enough for every price and every number of tokens."""
_MOST_TOKENS = 10**12
_MOST_KNOWN = 10_000


class Cost(NamedTuple):
    """An amount of money.

    amount: exact, in units of the currency. currency: its ISO 4217 code.
    """

    amount: Decimal
    currency: str

    def __str__(self) -> str:
        return f"{shown_amount(self.amount)} {self.currency}"


def shown_amount(amount: Decimal) -> str:
    """All of its digits, without an exponent and without zeros at the end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def added(amount: Decimal, more: Decimal) -> Decimal:
    """The exact sum."""
    return _EXACT.add(amount, more)


class Price:
    """The prices of one model, ready for use.

    prices: as they were given. currency: of prices that name none.
    """

    def __init__(self, prices: Prices, currency: str = DEFAULT_CURRENCY) -> None:
        self.currency = prices.currency or currency
        self._input = _per_token(prices.input)
        self._output = _per_token(prices.output)
        self._cached = self._input if prices.cached_input is None else _per_token(prices.cached_input)
        self._request = None if prices.request is None else Decimal(repr(prices.request))

    def of(self, input_tokens: object, output_tokens: object, cached_tokens: object) -> Cost | None:
        """The cost of a call; None if a number of tokens that has a price is not known.

        Tokens of the output that have no price, beside a price per request or none, have no cost that is known.
        """
        read, written, cached = _count(input_tokens), _count(output_tokens), _count(cached_tokens) or 0
        if self._input is not None and read is None:
            return None
        if self._output is not None and written is None:
            return None
        if self._output is None and written and self._request is None:
            return None
        with localcontext(_EXACT):
            total = Decimal(0) if self._request is None else self._request
            if self._input is not None and self._cached is not None and read is not None:
                cached = min(cached, read)
                total += self._input * (read - cached) + self._cached * cached
            if self._output is not None and written is not None:
                total += self._output * written
        return Cost(total, self.currency)


def _per_token(per_million: float | None) -> Decimal | None:
    return None if per_million is None else _EXACT.divide(Decimal(repr(per_million)), _MILLION)


def _count(tokens: object) -> int | None:
    return tokens if type(tokens) is int and 0 <= tokens <= _MOST_TOKENS else None


class _Listed(NamedTuple):
    pattern: re.Pattern[str]
    provider_id: str | None
    price: Price


class PriceTable:
    """Prices by the name of the model.

    entries: with the currency of those that name none. Of several patterns that fit, the first one counts.
    """

    def __init__(self, entries: Iterable[tuple[PriceEntry, str]]) -> None:
        self._exact: dict[tuple[str | None, str], Price] = {}
        self._patterns: list[_Listed] = []
        for entry, currency in entries:
            price = Price(entry, currency)
            if "*" in entry.model:
                self._patterns.append(_Listed(re.compile(_as_expression(entry.model)), entry.provider_id, price))
            else:
                self._exact.setdefault((entry.provider_id, entry.model), price)
        self._found = lru_cache(maxsize=_MOST_KNOWN)(self._look)

    def find(self, provider_id: str, model: str) -> Price | None:
        """The price of a model; an exact name goes before a pattern, and a provider_id before none."""
        return self._found(provider_id, model)

    def _look(self, provider_id: str, model: str) -> Price | None:
        exact = self._exact.get((provider_id, model)) or self._exact.get((None, model))
        if exact is not None:
            return exact
        for wanted in (provider_id, None):
            for listed in self._patterns:
                if listed.provider_id == wanted and listed.pattern.fullmatch(model):
                    return listed.price
        return None


def _as_expression(pattern: str) -> str:
    # Only `*` is special: the names of models may have brackets and question marks.
    return translate(re.sub(r"[\[?]", lambda found: f"[{found[0]}]", pattern))
