"""The YAML reader reads what PyYAML reads, and remembers the lines."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llamastack.stack.yaml_source import ConfigError, read_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20).filter(
    lambda value: "${env" not in repr(value)
)


@given(VALUES)
def test_reads_whatever_yaml_writes(value: object) -> None:
    assert read_yaml(yaml.safe_dump(value)).value == value


@given(st.text())
def test_any_text_is_read_or_refused_with_a_fault(text: str) -> None:
    try:
        read_yaml(text, environment={})
    except ConfigError as error:
        refused = error.faults
    else:
        return
    assert refused


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers(), min_size=1))
def test_every_key_knows_its_line(value: dict[str, int]) -> None:
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=False)
    document = read_yaml(text)
    for number, key in enumerate(value, start=1):
        assert document.line_of((key,)) == number


def test_anchors_and_merge_keys_work() -> None:
    text = "base: &b {x: 1}\nown:\n  <<: *b\n  y: 2\n"
    assert read_yaml(text).value["own"] == {"x": 1, "y": 2}


def test_an_alias_of_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="an alias inside the thing that it names"):
        read_yaml("a: &a [*a]\n")


def test_quoted_substitution_stays_text() -> None:
    assert read_yaml("a: '${env.X}'", {"X": "8"}).value == {"a": "8"}
    assert read_yaml("a: ${env.X}", {"X": "8"}).value == {"a": 8}
    assert read_yaml("a: ${env.X}", {"X": "b: [c"}).value == {"a": "b: [c"}
    assert read_yaml("a: ${env.X:}", {}).value == {"a": None}


def test_what_only_looks_like_a_date_is_a_fault_with_its_line() -> None:
    with pytest.raises(ConfigError, match="'2024-99-99' looks like a timestamp but is none") as caught:
        read_yaml("a: 1\nb: 2024-99-99\n")
    assert caught.value.faults[0].line == 2
