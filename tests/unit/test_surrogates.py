"""JSON with lone surrogates: read as it is, written with U+FFFD."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from llamastack.http.lone_surrogates import encode_json, whole_text, whole_texts
from llamastack_adapters.surrogate_pairs import SurrogateJoiner, decode_json
from llamastack_server.encoding import json_by, json_of

_ANY = st.text(st.characters(codec=None, categories=("L", "N", "P", "Z", "Cs")), max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _ANY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_ANY, inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_every_value_can_be_read_and_written(value: object) -> None:
    text = json.dumps(value).encode()
    assert decode_json(text) == json.loads(text)
    assert json.loads(encode_json(value)) == whole_texts(value)
    assert json.loads(json_of({"v": value})) == {"v": whole_texts(value)}


@given(_ANY)
def test_only_lone_surrogates_are_replaced(text: str) -> None:
    made = whole_text(text)
    made.encode()
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert made == text


def test_halves_that_meet_are_a_character() -> None:
    assert whole_text("a\ud83d\ude00b") == "a\U0001f600b"
    assert whole_text("a\ud83d b\udc00") == "a\ufffd b\ufffd"


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": "\\ud83d"', b'"\\ud8"', b"[" * 100_000 + b'"\\ud83d"'])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        decode_json(text)


class Reply(BaseModel):
    text: str
    more: dict[str, str] = {}


def test_a_reply_of_a_type() -> None:
    adapter = TypeAdapter(Reply)
    assert json_by(adapter, Reply(text="a")) == b'{"text":"a","more":{}}'
    reply = Reply.model_construct(text="x\ud83d", more={"\udc00": "\ud83d\ude00"})
    assert json.loads(json_by(adapter, reply)) == {"text": "x\ufffd", "more": {"\ufffd": "\U0001f600"}}


@given(st.text(), st.lists(st.integers(0, 40)))
def test_a_text_in_any_pieces_is_the_same_text(text: str, cuts: list[int]) -> None:
    """Cut between any two UTF-16 units, as backends do whose texts are of these."""
    units = text.encode("utf-16-le", "surrogatepass")
    places = sorted({0, len(units), *(2 * cut for cut in cuts if 2 * cut < len(units))})
    joiner = SurrogateJoiner()
    made = [
        joiner.add(units[start:end].decode("utf-16-le", "surrogatepass")) for start, end in itertools.pairwise(places)
    ]
    for piece in made:
        piece.encode()
    assert "".join(made) + joiner.end() == text
