"""The elements of a body are counted without reading it as JSON."""

from __future__ import annotations

import json
import random

import pytest

from llamastack.provider.errors import InvalidRequestError
from llamastack_server.element_limit import refuse_more_elements

_LONG = "a long text, " * 400
_TEXTS = [
    "",
    "a",
    'a "quoted" word',
    "a\\",
    '\\"',
    "[[[[{{{{,,,,",
    "line\nbreak",
    _LONG,
    f'{_LONG}"',
    f"{_LONG}\\",
    '"' * 40,
]


def _elements(value: object, numbers_in_one: int) -> float:
    if isinstance(value, str):
        return 1.0
    if isinstance(value, list):
        return 1 + sum(_elements(each, numbers_in_one) for each in value)
    if isinstance(value, dict):
        return 1 + sum(1 + _elements(each, numbers_in_one) for each in value.values())
    return 1 / numbers_in_one


def _some(random_: random.Random, depth: int) -> object:
    kind = random_.randrange(5) if depth else 2
    if kind == 0:
        return [_some(random_, depth - 1) for _ in range(random_.randrange(12))]
    if kind == 1:
        return {f"{each}{random_.choice(_TEXTS)}": _some(random_, depth - 1) for each in range(random_.randrange(6))}
    return random_.choice(_TEXTS) if kind < 4 else random_.randrange(100)


@pytest.mark.parametrize("seed", range(60))
def test_a_body_over_the_limit_is_refused_whatever_its_texts_hold(seed: int) -> None:
    random_ = random.Random(seed)
    value = [_some(random_, 3) for _ in range(40)]
    body = json.dumps(value, separators=(",", ":")).encode()
    there = int(_elements(value, 20))

    with pytest.raises(InvalidRequestError):
        refuse_more_elements(body, there // 2)
    # Commas count as numbers too, so that a count may be a little over what is there.
    refuse_more_elements(body, there + there // 10 + 10)


@pytest.mark.parametrize("mark", [b"[", b"{", b'"",'])
def test_marks_beside_long_texts_are_counted(mark: bytes) -> None:
    text = b'"' + b"x" * 100_000 + b'"'
    body = b"[" + text + b"," + mark * 5000 + b"," + text + b"]"

    with pytest.raises(InvalidRequestError):
        refuse_more_elements(body, 4900)
    refuse_more_elements(b"[" + text + b',"' + mark.replace(b'"', b'\\"') * 5000 + b'",' + text + b"]", 4900)
