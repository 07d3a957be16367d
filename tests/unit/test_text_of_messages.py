"""The texts of messages, as guards read them."""

from __future__ import annotations

import pytest

from llamastack.api.common import ImageMedia, Message, SystemMessage, UserMessage, texts_of

_DOT = ImageMedia(image="data:image/png;base64,iVBORw0KGgo=")


@pytest.mark.parametrize(
    ("message", "texts"),
    [
        (SystemMessage(content="one"), ["one"]),
        (UserMessage(content=["one", _DOT, "two"]), ["one", "two"]),
        (UserMessage(content="one", context="two"), ["one", "two"]),
        (UserMessage(content=["one", "two"], context=["three", _DOT]), ["one", "two", "three"]),
        (UserMessage(content=_DOT), []),
    ],
)
def test_each_text_of_a_message_is_by_itself(message: Message, texts: list[str]) -> None:
    assert texts_of(message) == texts
