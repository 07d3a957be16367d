"""Where sentences end in long texts, which are searched in parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack_memory_kit import sentences
from llamastack_memory_kit.sentences import ends_in

PIECES = [
    "Word",
    "word",
    "Dr",
    "a",
    " ",
    "  ",
    "\n",
    "\n \n",
    "# ",
    "- ",
    "1. ",
    "12) ",
    ".",
    "...",
    "?!",
    '."',
    ") ",
    "。",
    "」",
]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_parts_have_the_ends_of_the_whole(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        whole = [*ends_in(text)]
        patch.setattr(sentences, "_WINDOW", 3)
        assert [*ends_in(text)] == whole
