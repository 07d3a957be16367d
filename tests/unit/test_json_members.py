"""Members changed in the text of a JSON object: the rest stays, byte for byte, and the work is linear."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamastack_adapters.openai_dialect import OpenAIRequest
from llamastack_adapters.openai_dialect.json_members import renamed, with_string

MIB = 2**20
NAMES = ("model", "Model", "a", "", "x\\", 'x"model', "models", "é", "max_tokens", "\\u006dodel", 'model"', "model:")
texts = st.one_of(st.sampled_from((*NAMES, '"model":"a"', '{"model": 1}', '\\"model":')), st.text(max_size=8))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)
spaces = st.text(" \t\r\n", max_size=2)


@st.composite
def strings_written(draw: st.DrawFn, value: str) -> str:
    """A JSON string: each character as itself, or as its number in small or large letters."""
    written = ""
    for character in value:
        number = f"{ord(character):04x}"
        plain = json.dumps(character, ensure_ascii=False)[1:-1]
        forms = [plain, plain, f"\\u{number}", f"\\u{number.upper()}"] if len(number) == 4 else [plain]
        written += draw(st.sampled_from(forms))
    return f'"{written}"'


@st.composite
def values_written(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.integers(0, 3 if depth else 1))
    if kind == 2:
        inside = ",".join(draw(values_written(depth - 1)) for _ in range(draw(st.integers(0, 3))))
        return f"[{draw(spaces)}{inside}{draw(spaces)}]"
    if kind == 3:
        names = draw(st.lists(st.sampled_from(NAMES), max_size=3))
        return "{" + ",".join([draw(members_written(name, depth - 1)) for name in names]) + draw(spaces) + "}"
    value = draw(scalars)
    return draw(strings_written(value)) if isinstance(value, str) else json.dumps(value)


@st.composite
def members_written(draw: st.DrawFn, name: str, depth: int) -> str:
    value = draw(values_written(depth))
    return f"{draw(spaces)}{draw(strings_written(name))}{draw(spaces)}:{draw(spaces)}{value}"


@st.composite
def objects_written(draw: st.DrawFn, name: str, value: st.SearchStrategy[str]) -> tuple[str, str, str]:
    """An object whose last member `name` is a string: what stands before that value, the value, what stands after."""
    before = [draw(members_written(other, 2)) for other in draw(st.lists(st.sampled_from(NAMES), max_size=4))]
    after = draw(st.lists(st.sampled_from([other for other in NAMES if other != name]), max_size=4))
    key = f"{draw(spaces)}{draw(strings_written(name))}{draw(spaces)}:{draw(spaces)}"
    head = draw(spaces) + "{" + "".join(f"{member}," for member in before) + key
    tail = draw(spaces) + "".join(f",{draw(members_written(other, 2))}" for other in after) + "}" + draw(spaces)
    return head, draw(strings_written(draw(value))), tail


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


@settings(max_examples=400, deadline=None)
@given(objects_written("model", texts), st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable()))
def test_the_model_alone_is_changed(written: tuple[str, str, str], name: str) -> None:
    head, value, tail = map(encoded, written)
    body = head + value + tail
    made = with_string(body, "model", name)
    assert (made[: len(head)], made[len(made) - len(tail) :]) == (head, tail)
    assert json.loads(made[len(head) : len(made) - len(tail)]) == name
    assert list(json.loads(made).items()) == list((json.loads(body) | {"model": name}).items())


@settings(max_examples=200, deadline=None)
@given(objects_written("max_tokens", texts))
def test_a_member_alone_is_renamed(written: tuple[str, str, str]) -> None:
    body = encoded("".join(written))
    pairs: list[tuple[str, Any]] = json.loads(body, object_pairs_hook=list)
    made = renamed(body, "max_tokens", "max_completion_tokens")
    wanted = [("max_completion_tokens" if name == "max_tokens" else name, value) for name, value in pairs]
    assert json.loads(made, object_pairs_hook=list) == wanted


@pytest.mark.parametrize(
    ("body", "made"),
    [
        (b'{"model":"a","x":{"model":"a"}}', b'{"model":"N","x":{"model":"a"}}'),
        (b'{"x":[{"model":"a"}],"model" :\n"a"}', b'{"x":[{"model":"a"}],"model" :\n"N"}'),
        (b'{"\\u006dodel":"a","x":{"model":"a"}}', b'{"\\u006dodel":"N","x":{"model":"a"}}'),
        (b'{"m\\u006Fdel":"a"}', b'{"m\\u006Fdel":"N"}'),
        (b'{"model":"first","model":"last"}', b'{"model":"first","model":"N"}'),
        (b'{"model":7,"model":"last","x":"model"}', b'{"model":7,"model":"N","x":"model"}'),
        (b'{"x\\"model":"a","model":"b"}', b'{"x\\"model":"a","model":"N"}'),
        (b'{"x":"\\"model\\":\\"a\\"","model":"a\\"}"}', b'{"x":"\\"model\\":\\"a\\"","model":"N"}'),
    ],
)
def test_the_model_of_the_outermost_object(body: bytes, made: bytes) -> None:
    assert with_string(body, "model", "N") == made


def filled(pattern: bytes) -> bytes:
    return pattern * (MIB // len(pattern))


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","metadata":[' + filled(b'{"model":"a"},')[:-1] + b"]}",
        b'{"metadata":{' + filled(b'"\\u006dodel":"a",')[:-1] + b'},"model":"a"}',
        b"{" + filled(b'"model":"a",') + b'"model":"a"}',
        b'{"model":"a","x":"' + filled(b'\\"model\\":') + b'","y":{"model":1}}',
        b'{"model"' + filled(b" ") + b':"a","y":{"model":1}}',
        b'{"model":"' + filled(b"\\\\") + b'","y":{"model":1}}',
        b'{"x":' + b"[" * 190 + filled(b'"model",')[:-1] + b"]" * 190 + b',"model":"a"}',
    ],
    ids=["nested", "escaped", "repeated", "in a text", "spaces", "a long value", "deep"],
)
def test_the_work_is_linear(body: bytes) -> None:
    request = OpenAIRequest("chat/completions", "a", body, given=("model",), stream=False, named="p/a")
    started = time.process_time()
    made = request.body_for("N")
    # About 0.03 s; what grows with the square of the size takes minutes.
    assert time.process_time() - started < 1.0
    assert json.loads(made) == json.loads(body) | {"model": "N"}
