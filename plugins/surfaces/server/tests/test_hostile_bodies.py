"""Bodies that are small to send and dear to check: each is answered in a moment, with the first few faults."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamastack.provider.api_handle import ApiMethod
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import MOST_FAULTS
from llamastack_server.element_limit import refuse_more_elements
from llamastack_server.native_endpoint import read_arguments
from llamastack_server.settings import ServerConfig

LIMIT = ServerConfig().max_body_elements
MIB = 2**20


async def unused(arguments: dict[str, Any]) -> None:
    raise AssertionError("not called")


METHODS = {
    f"{api.name}.{name}": ApiMethod(method, unused) for api in BUILTIN_APIS for name, method in api.methods.items()
}


def many(pattern: str, size: int = MIB) -> str:
    return ",".join([pattern] * (size // (len(pattern) + 1)))


def fields(pattern: str, count: int) -> str:
    return ",".join(f'"k{number}":{pattern}' for number in range(count))


def counted(value: object) -> float:
    """Elements, counted in another way than by the server."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(counted(item) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(counted(item) for item in value)
    return 1 if isinstance(value, str) else 0.05


def seconds(call: Callable[[], object]) -> float:
    """The least of three: how long it takes on a machine that does nothing else."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return min(taken)


def refusal_of(call: Callable[[], object]) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        call()
    return caught.value


def is_refused(body: bytes, limit: int) -> bool:
    try:
        refuse_more_elements(body, limit)
    except InvalidRequestError:
        return True
    return False


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=6)
    | st.sampled_from(('"', "\\", '\\"', '{"a":[1,', ",")),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=5),
    max_leaves=40,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=4), json_values, max_size=5), st.integers(1, 60), st.booleans())
def test_elements_are_counted_as_they_are(value: dict[str, Any], limit: int, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    # An element has two bytes at least, so that short bodies are let through unseen; empty ones blur the numbers.
    wanted = counted(value)
    if is_refused(body, limit):
        assert wanted * 1.1 + 1 > limit
    else:
        assert wanted <= limit * 1.1 + 2


@pytest.mark.parametrize(
    "inside",
    [
        many('{"role":"user","content":"x"}'),
        many("[]"),
        many("{}"),
        many('""'),
        many('"\\\\"'),
        many('"\\""'),
        many("1", 2_200_000),
        many("1.5", 4_300_000),
        many("null", 5_500_000),
        fields("1", 60_000),
    ],
    ids=lambda text: text[:20],
)
def test_too_many_elements_are_refused_before_they_are_read(inside: str) -> None:
    body = f'{{"model":"m","messages":[{inside}]}}'.encode()
    error = refusal_of(lambda: refuse_more_elements(body, LIMIT))
    assert f"more than {LIMIT} elements" in error.message
    assert "server.max_body_elements" in error.message
    assert seconds(lambda: is_refused(body, LIMIT)) < 0.02 * len(body) / MIB


@pytest.mark.parametrize(
    "text",
    ["hello, world [1, 2] {3} ", '\\"a\\": [\\"b\\"], ', "\\\\", "\\n,,,,"],
    ids=["prose", "json", "\\", "commas"],
)
def test_marks_inside_a_text_are_no_elements(text: str) -> None:
    body = b'{"content":"' + text.encode() * (4 * MIB // len(text)) + b'"}'
    refuse_more_elements(body, 10)
    assert seconds(lambda: refuse_more_elements(body, 10)) < 0.02 * len(body) / MIB


def listing(pattern: str, size: int, then: str = "") -> str:
    return f"[{many(pattern, size)}{then}]"


def user(content: str) -> str:
    return '[{"role":"user","content":' + content + "}]"


def tool(parameters: str) -> str:
    return '[{"tool_name":"t","parameters":{' + parameters + "}}]"


# What twice the limit lets through, as dear as can be: method, argument and its value.
DEAR = {
    "messages of a wrong role": ("chat_completion", "messages", listing('{"role":"x"}', 200_000)),
    "messages without a role": ("chat_completion", "messages", listing("{}", 92_000)),
    "messages that are numbers": ("chat_completion", "messages", listing("1.5", 3_700_000)),
    "parts": ("chat_completion", "messages", user(listing('{"image":"no"}', 220_000))),
    "a part at the end": ("chat_completion", "messages", user(listing('"x"', 170_000, ",1"))),
    "an image at the end": ("chat_completion", "messages", user(listing('{"image":"data:,"}', 270_000, ",1"))),
    "contents": ("embeddings", "contents", listing("1.5", 3_700_000)),
    "lists of contents": ("embeddings", "contents", listing("[1]", 140_000)),
    "unknown fields": ("chat_completion", "messages", "[]," + fields("1", 45_000)),
    "unknown fields of a message": ("chat_completion", "messages", '[{"role":"user",' + fields("1", 44_000) + "}]"),
    "fields of parameters": ("chat_completion", "tools", tool(fields('{"a":1,"b":2}', 11_000))),
    "wrong parameters": ("chat_completion", "tools", tool(fields("1", 44_000))),
    "stop": ("chat_completion", "sampling_params", '{"stop":' + listing("1", 1_800_000) + "}"),
}


@pytest.mark.parametrize("case", DEAR.values(), ids=DEAR)
def test_faults_are_found_and_told_in_a_moment(case: tuple[str, str, str]) -> None:
    name, field, value = case
    method = METHODS[f"inference.{name}"]
    body = f'{{"model":"m","{field}":{value}}}'.encode()
    refuse_more_elements(body, 2 * LIMIT)
    error = refusal_of(lambda: read_arguments(method, body, b""))
    assert error.message
    assert 1 <= len(error.errors) <= MOST_FAULTS
    assert len(json.dumps(error.to_wire())) < 20_000
    # At most about 0.03 on a machine that does nothing else.
    assert seconds(lambda: refusal_of(lambda: read_arguments(method, body, b""))) < 0.2


def test_the_first_of_very_many_faults_are_named() -> None:
    body = f'{{"model":"m","messages":[{{"role":"user","content":"x",{fields("1", 40_000)}}}]}}'.encode()
    with pytest.raises(InvalidRequestError) as caught:
        read_arguments(METHODS["inference.chat_completion"], body, b"")
    assert caught.value.param == "messages[0].k0"
    assert caught.value.message.endswith("messages[0].k2: unknown field; and 39997 more")


def test_faults_that_cannot_be_named_are_counted() -> None:
    known = ",".join(f'"k{number}":{{"param_type":"string"}}' for number in range(100))
    wrong = ",".join(f'"w{number}":1' for number in range(2000))
    messages = user('"x"')
    body = f'{{"model":"m","messages":{messages},"tools":{tool(f"{known},{wrong}")}}}'.encode()
    with pytest.raises(InvalidRequestError) as caught:
        read_arguments(METHODS["inference.chat_completion"], body, b"")
    assert "2000 faults, too many to list" in caught.value.message


@pytest.mark.parametrize("body", ['{"a":' * 100_000, "[" * 100_000, '{"messages":' + "[" * 500 + "]" * 500 + "}"])
def test_deep_nesting_is_a_clear_error(body: str) -> None:
    with pytest.raises(InvalidRequestError, match="nested too deeply"):
        read_arguments(METHODS["inference.chat_completion"], body.encode(), b"")


def test_long_words_of_a_client_are_not_repeated_whole() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "x" * MIB}], "y" * MIB: 1}).encode()
    with pytest.raises(InvalidRequestError) as caught:
        read_arguments(METHODS["inference.chat_completion"], body, b"")
    assert len(json.dumps(caught.value.to_wire())) < 5000


def test_a_query_of_very_many_parameters() -> None:
    with pytest.raises(InvalidRequestError, match="more than 1000 parameters"):
        read_arguments(METHODS["models.get_model"], b"", b"&".join([b"identifier=x"] * 1001))


@pytest.mark.parametrize("body", [b'{"identifier":"a","identifier":"b"}', b'{"identifier":1,"identi\\u0066ier":"b"}'])
def test_the_last_field_of_one_name_counts(body: bytes) -> None:
    assert read_arguments(METHODS["models.get_model"], body, b"") == {"identifier": "b"}
