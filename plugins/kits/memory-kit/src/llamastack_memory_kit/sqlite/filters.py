"""Filters on metadata as SQL, for metadata that is JSON in a column."""

from __future__ import annotations

from llamastack_memory_kit.filters import Combination, Comparison, Filter, Value, kind_of

_SIGNS = {"eq": "=", "ne": "=", "in": "=", "nin": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_TYPES = {"number": "('integer', 'real')", "text": "('text')"}


def where(wanted: Filter, column: str) -> tuple[str, list[Value]]:
    """A condition, with what its question marks stand for, that finds what `matches` finds.

    column: has the metadata of a row as JSON. https://sqlite.org/json1.html has the types of `json_each`.
    """
    if isinstance(wanted, Combination):
        parts = [where(part, column) for part in wanted.parts]
        return f"({f' {wanted.operator.upper()} '.join(sql for sql, _ in parts)})", [v for _, vs in parts for v in vs]
    values = wanted.value if isinstance(wanted.value, tuple) else (wanted.value,)
    compared = [_compared(wanted, value) for value in values]
    condition = " OR ".join(sql for sql, _ in compared)
    arguments = [argument for _, given in compared for argument in given]
    items = f"json_each(CASE kept.type WHEN 'array' THEN kept.value ELSE json_array(json({_JSON})) END)"
    tables = f"json_each({column}) AS kept, {items} AS item"
    found = f"EXISTS (SELECT 1 FROM {tables} WHERE kept.key = ? AND ({condition}))"
    negated = "NOT " if wanted.operator in ("ne", "nin") else ""
    return f"{negated}{found}", [wanted.key, *arguments]


# A value of `json_each` as JSON: true, false and null are numbers and NULL in `value`.
_JSON = (
    "CASE kept.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' WHEN 'object' THEN kept.value "
    "ELSE json_quote(kept.value) END"
)


def _compared(wanted: Comparison, value: Value) -> tuple[str, list[Value]]:
    kind = kind_of(value)
    if kind == "bool":
        return f"item.type = '{'true' if value else 'false'}'", []
    assert kind is not None
    return f"(item.type IN {_TYPES[kind]} AND item.value {_SIGNS[wanted.operator]} ?)", [value]
