"""Filters on metadata as conditions on two fields of a point's payload, `terms` and `numbers`.

Qdrant compares values of mixed types, numbers of more than 53 bits and texts in its own way, and its paths of keys give
dots and brackets a meaning. So a point has, for the metadata of its document,

    terms     a hash of each pair of a key and a value, and of each key with a text
    numbers   hash of a key -> its numbers, rounded to floats

`eq`, `ne`, `in` and `nin` are exact on `terms`. The order of numbers (because of the rounding) and of texts (which
Qdrant cannot order) may let too many points through, never too few; see `is_exact`.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable

from qdrant_client import models

from llamastack.api.base import JsonObject
from llamastack_memory_kit import Combination, Comparison, Filter

TERMS = "terms"
NUMBERS = "numbers"


def filter_fields(metadata: JsonObject) -> dict[str, object]:
    """The fields of the payload that filters look at; none for metadata with nothing to compare."""
    terms: dict[str, None] = {}
    numbers: dict[str, list[float]] = {}
    for key, kept in metadata.items():
        for item in kept if isinstance(kept, list) else [kept]:
            kind = _kind(item)
            if kind is None or item != item:  # NaN fits nothing
                continue
            terms[_term(key, item)] = None
            if kind == "text":
                terms[_has_text(key)] = None
            elif kind == "number":
                numbers.setdefault(_hash(key), []).append(_rounded(item))
    fields: dict[str, object] = {}
    if terms:
        fields[TERMS] = list(terms)
    if numbers:
        fields[NUMBERS] = numbers
    return fields


def condition_of(wanted: Filter) -> models.Filter:
    """A condition that every point fits whose metadata fit the filter."""
    if isinstance(wanted, Combination):
        parts = [condition_of(part) for part in wanted.parts]
        return models.Filter(must=parts) if wanted.operator == "and" else models.Filter(should=parts)
    values = wanted.value if isinstance(wanted.value, tuple) else (wanted.value,)
    if wanted.operator in ("eq", "in"):
        return models.Filter(must=[_has_term(_term(wanted.key, value) for value in values)])
    if wanted.operator in ("ne", "nin"):
        return models.Filter(must_not=[_has_term(_term(wanted.key, value) for value in values)])
    return models.Filter(must=[_ordered(wanted, value) for value in values])


def is_exact(wanted: Filter) -> bool:
    """Whether no other point fits the condition. If not, what is found must be compared with the filter itself."""
    if isinstance(wanted, Combination):
        return all(map(is_exact, wanted.parts))
    return wanted.operator in ("eq", "ne", "in", "nin")


def _ordered(wanted: Comparison, value: object) -> models.FieldCondition:
    kind = _kind(value)
    if kind == "text":
        return _has_term([_has_text(wanted.key)])
    if kind == "bool":  # Python orders false before true, and so does `matches`
        return _has_term([_term(wanted.key, False), _term(wanted.key, True)])
    bound = _rounded(value)
    within = models.Range(gte=bound) if wanted.operator in ("gt", "gte") else models.Range(lte=bound)
    return models.FieldCondition(key=f"{NUMBERS}.{_hash(wanted.key)}", range=within)


def _has_term(terms: Iterable[str]) -> models.FieldCondition:
    return models.FieldCondition(key=TERMS, match=models.MatchAny(any=list(terms)))


def _kind(value: object) -> str | None:
    """Values are compared with values of their kind; None for what fits nothing."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def _rounded(value: object) -> float:
    """The nearest float; JSON has no infinity."""
    try:
        near = float(value)  # type: ignore[arg-type]
    except OverflowError:
        near = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    return max(-sys.float_info.max, min(sys.float_info.max, near))


def _term(key: str, value: object) -> str:
    kind = _kind(value)
    if kind == "number" and isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 equals 1.0
    return _hash(key, f"{kind} {hex(value) if kind == 'number' and isinstance(value, int) else value!r}")


def _has_text(key: str) -> str:
    return _hash(key, "text")


def _hash(*parts: str) -> str:
    """96 bits, in letters and digits. The lengths keep ("ab", "c") and ("a", "bc") apart."""
    made = hashlib.blake2s(digest_size=12)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        made.update(len(raw).to_bytes(8, "big") + raw)
    return made.hexdigest()
