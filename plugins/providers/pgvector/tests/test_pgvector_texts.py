"""Filters as SQL mean what the kit says, and every text comes back as it was."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamastack_memory_kit import Combination, Comparison, Filter, matches
from llamastack_provider_pgvector.filter_sql import condition_of
from llamastack_provider_pgvector.texts import escaped, fields, unescaped, words

_TEXTS = st.text(alphabet=st.sampled_from("aAb\0\x01\x02é\ud7ff\ud800\udfff\ue000𝄞\"'\\%{}"), max_size=3)
_NUMBERS = (
    st.integers(-3, 3)
    | st.floats(-3, 3)
    | st.sampled_from([0.1, 1e23, 2**53, 2**53 + 1, float(2**53), -(2**63), 2**63 - 1, 5e-324, 1.7e308])
)
_VALUES = st.booleans() | _NUMBERS | _TEXTS
_ODD = st.none() | st.just({"a": 1}) | st.sampled_from([float("inf"), float("-inf"), float("nan"), 10**30, 10**23])
_KEYS = st.sampled_from(["year", "a\0", "", 'k"\\'])
_METADATA = st.dictionaries(_KEYS, _VALUES | _ODD | st.lists(_VALUES | _ODD | st.just([1]), max_size=3), max_size=4)
_ONE = st.builds(Comparison, _KEYS, st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]), _VALUES)
_SOME = st.builds(
    Comparison, _KEYS, st.sampled_from(["in", "nin"]), st.lists(_VALUES, min_size=1, max_size=3).map(tuple)
)
_FILTERS = st.recursive(
    _ONE | _SOME,
    lambda parts: st.builds(
        Combination, st.sampled_from(["and", "or"]), st.lists(parts, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def connection(url: str) -> Any:
    with psycopg.connect(url, autocommit=True) as made:
        yield made


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=_FILTERS, several=st.lists(_METADATA, min_size=1, max_size=6))
def test_a_filter_finds_what_the_kit_says(connection: Any, wanted: Filter, several: list[dict[str, Any]]) -> None:
    condition, values = condition_of(wanted)
    statement = psycopg.sql.SQL(
        "SELECT {} FROM unnest(%s::jsonb[]) WITH ORDINALITY AS t (fields, n) ORDER BY n"
    ).format(condition)
    found = connection.execute(statement, [*values, [fields(each) for each in several]]).fetchall()
    assert [fits for (fits,) in found] == [matches(wanted, each) for each in several]


@settings(max_examples=300)
@given(first=_TEXTS | st.text(), second=_TEXTS | st.text())
def test_escaped_texts_are_read_as_they_were_and_keep_their_order(first: str, second: str) -> None:
    assert unescaped(escaped(first)) == first
    assert "\0" not in escaped(first)
    kept = [escaped(text).encode() for text in (first, second)]
    assert (kept[0] < kept[1]) == (first < second)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cats' & dogs | !(birds):*", ["cats", "dogs", "birds"]),
        ("/usr/share/doc, a_b, example.org", ["usr", "share", "doc", "a", "b", "example", "org"]),
        ("日本 und Äpfel", ["日", "本", "und", "äpfel"]),
        ("\0 -- ;", []),
    ],
)
def test_words_have_no_signs(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_fields_are_json() -> None:
    read = json.loads(fields({"a": [1, "x", None, {}], "b": None, "c": True}))
    assert read == {"a": [1, "x"], "c": [True]}
