"""Filters on metadata as SQL. They find exactly what `llamastack_memory_kit.matches` finds."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from llamastack_memory_kit import Combination, Comparison, Filter
from llamastack_provider_pgvector.texts import escaped, number, scalar

Condition = tuple[sql.Composable, list[object]]
"""An expression that is true or false, never null, and its parameters."""

_ORDERS: dict[str, LiteralString] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def condition_of(wanted: Filter) -> Condition:
    """The condition on the column `fields`, which holds `texts.fields` of the document's metadata."""
    if isinstance(wanted, Combination):
        parts = [condition_of(part) for part in wanted.parts]
        joined = sql.SQL(" AND " if wanted.operator == "and" else " OR ").join(part for part, _ in parts)
        return sql.SQL("({})").format(joined), [value for _, values in parts for value in values]
    values = wanted.value if isinstance(wanted.value, tuple) else (wanted.value,)
    if wanted.operator in _ORDERS:
        parts = [_ordered(wanted, value) for value in values]
        joined = sql.SQL(" OR ").join(part for part, _ in parts)
        return sql.SQL("({})").format(joined), [each for _, given in parts for each in given]
    key = scalar(wanted.key)
    objects = [f"{{{key}:[{item}]}}" for item in map(scalar, values) if item is not None]
    negated = sql.SQL("NOT " if wanted.operator in ("ne", "nin") else "")
    return sql.SQL("({}fields @> ANY (%s::jsonb[]))").format(negated), [objects]


def _ordered(wanted: Comparison, value: str | float | bool) -> Condition:
    """Compare only items of the value's type: a cast of another one would fail."""
    kind, cast, given = _typed(value)
    condition = sql.SQL(
        "EXISTS (SELECT FROM jsonb_array_elements(fields -> %s::text) AS item WHERE"
        " CASE WHEN jsonb_typeof(item) = {kind} THEN {kept} {order} %s{cast} ELSE false END)"
    ).format(
        kind=sql.Literal(kind),
        kept=sql.SQL(_KEPT[kind]),
        order=sql.SQL(_ORDERS[wanted.operator]),
        cast=sql.SQL(cast),
    )
    return condition, [escaped(wanted.key), given]


_KEPT: dict[str, LiteralString] = {
    "boolean": "item::boolean",
    "number": "item::numeric",
    # The collation C compares the bytes of UTF-8, which have the order of code points.
    "string": "(item #>> '{}') COLLATE \"C\"",
}


def _typed(value: str | float | bool) -> tuple[str, LiteralString, str]:
    if isinstance(value, bool):
        return "boolean", "::text::boolean", str(value).lower()
    if isinstance(value, str):
        return "string", '::text COLLATE "C"', escaped(value)
    return "number", "::text::numeric", number(value)
