"""Which chunk of a stream is the first that holds something of the model."""

from __future__ import annotations

import json

import pytest

from llamastack_openai_api.reply_facts import announces_json, announces_mapping

ROLE = {"role": "assistant", "content": ""}
CALL = [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]


def chunk(*deltas: dict[str, object], **choice: object) -> dict[str, object]:
    return {"choices": [{"index": place, "delta": delta, **choice} for place, delta in enumerate(deltas)]}


@pytest.mark.parametrize(
    ("delta", "announces"),
    [
        (ROLE, True),
        ({"role": "assistant", "content": None}, True),
        ({"role": "assistant"}, True),
        ({"role": "assistant", "content": "Rome"}, False),
        ({"content": "Rome"}, False),
        ({"content": ""}, False),
        ({"role": "assistant", "content": None, "tool_calls": CALL}, False),
        ({"role": "assistant", "content": "", "reasoning_content": "Hm"}, False),
    ],
)
def test_a_chunk_with_a_role_alone_announces_the_others(delta: dict[str, object], announces: bool) -> None:
    assert announces_mapping(chunk(delta)) is announces
    assert announces_json(f"data: {json.dumps(chunk(delta))}\n\n".encode()) is announces


def test_a_block_of_several_events_is_no_announcement() -> None:
    events = [f"data: {json.dumps(chunk(delta))}\n\n" for delta in (ROLE, {"content": "Rome"})]
    assert not announces_json("".join(events).encode())


def test_other_pieces_are_none() -> None:
    assert not announces_mapping({"choices": []})
    assert not announces_mapping(b"data: ...")
    assert not announces_json({"choices": []})
    assert not announces_json(b"data: [DONE]\n\n")
    assert not announces_mapping(chunk(ROLE, finish_reason="stop"))
