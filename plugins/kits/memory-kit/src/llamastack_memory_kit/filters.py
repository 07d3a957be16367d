"""Filters on the metadata of documents: what a query says, and what it means for every backend.

The wire form is that of the filters of OpenAI's vector stores:
https://platform.openai.com/docs/api-reference/vector-stores/search
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from llamastack.api.base import JsonObject

Value = str | int | float | bool
"""What metadata is compared with. True and false are no numbers."""
Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
"""How metadata is compared."""
MOST_COMPARISONS = 256
"""The most comparisons of one filter."""
MOST_LEVELS = 16
"""The most combinations that stand in each other."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Metadata compared with a value.

    key: a key of the document's metadata. operator: how it is compared. value: what with; a tuple for `in` and `nin`.
    """

    key: str
    operator: Operator
    value: Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Combination:
    """Several filters at once.

    operator: `and`, all of the parts; `or`, at least one of them. parts: one or more.
    """

    operator: Literal["and", "or"]
    parts: tuple[Filter, ...]


Filter = Comparison | Combination
"""Which documents are searched."""

_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def matches(wanted: Filter, metadata: JsonObject) -> bool:
    """Whether a document with this metadata is searched. This is what a filter means; a backend must find the same.

    A value is compared only with a value of its type: number, text, or true and false; 1 equals 1.0. Texts are ordered
    by their code points. A list in the metadata fits if one of its items does. A key that is not there, null and
    objects fit nothing. `ne` is the contrary of `eq`, and `nin` of `in`, so that they find a document without the key.
    """
    if isinstance(wanted, Combination):
        found = (matches(part, metadata) for part in wanted.parts)
        return all(found) if wanted.operator == "and" else any(found)
    kept = metadata.get(wanted.key)
    items = kept if isinstance(kept, list) else [kept]
    values = wanted.value if isinstance(wanted.value, tuple) else (wanted.value,)
    name = wanted.operator
    if name in ("ne", "nin", "in"):
        fits = any(_compare("eq", item, value) for item in items for value in values)
        return fits if name == "in" else not fits
    return any(_compare(name, item, value) for item in items for value in values)


def kind_of(value: object) -> Literal["bool", "number", "text"] | None:
    """The type of a value of metadata as comparisons see it; None for what fits nothing."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def _compare(name: str, kept: object, value: Value) -> bool:
    return kind_of(kept) == kind_of(value) and _ORDERED[name](kept, value)


# ---- the wire form -----------------------------------------------------------------------------------------------

# 64 bits, as most databases have them.
_Int = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
_Float = Annotated[StrictFloat, Field(allow_inf_nan=False)]
_Number = _Int | _Float
_Scalar = StrictBool | _Number | StrictStr


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _EqualParams(_Model):
    type: Literal["eq", "ne"]
    key: StrictStr
    value: _Scalar


class _OrderParams(_Model):
    type: Literal["gt", "gte", "lt", "lte"]
    key: StrictStr
    value: _Number | StrictStr


class _ListParams(_Model):
    type: Literal["in", "nin"]
    key: StrictStr
    value: Annotated[list[_Scalar], Field(min_length=1, max_length=1000)]


class _CombinationParams(_Model):
    type: Literal["and", "or"]
    filters: Annotated[list[FilterParams], Field(min_length=1)]


FilterParams = Annotated[
    _EqualParams | _OrderParams | _ListParams | _CombinationParams,
    Field(discriminator="type"),
]
"""A filter as a query has it."""
_CombinationParams.model_rebuild()


def filter_of(params: FilterParams) -> Filter:
    """The filter that the params of a query hold."""
    if isinstance(params, _CombinationParams):
        return Combination(params.type, tuple(map(filter_of, params.filters)))
    value = tuple(params.value) if isinstance(params.value, list) else params.value
    return Comparison(params.key, params.type, value)


def too_large(raw: object) -> str | None:
    """Why a filter, as JSON, is refused before it is read; None if it is not."""
    level, count = [raw], 0
    for _ in range(MOST_LEVELS + 1):
        count += sum(not _parts(each) for each in level)
        level = [part for each in level for part in _parts(each)]
        if count + len(level) > MOST_COMPARISONS:
            return f"a filter may have at most {MOST_COMPARISONS} comparisons"
        if not level:
            return None
    return f"filters may be nested at most {MOST_LEVELS} deep"


def _parts(raw: object) -> list[object]:
    parts = raw.get("filters") if isinstance(raw, dict) else None
    return parts if isinstance(parts, list) else []


def comparisons(wanted: Filter) -> Iterator[Comparison]:
    """Every comparison in a filter."""
    if isinstance(wanted, Comparison):
        yield wanted
    else:
        for part in wanted.parts:
            yield from comparisons(part)
