"""Tool calls out of fragments: what comes out is what went in, or a failure, never a call with another's arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamastack.api import ToolCall, ToolCallDelta, ToolCallParseStatus
from llamastack_adapters.openai_dialect import parse_arguments
from llamastack_adapters.openai_dialect.call_assembler import ToolCallAssembler
from llamastack_adapters.openai_dialect.object_scan import ObjectScan
from llamastack_adapters.openai_dialect.tool_calls import whole_calls

Fragment = tuple[int | str | None, str | int | None, str | None, Any]
Outcome = tuple[str, str, Any]
"""Name, id and arguments of a call; for a failure the text, with an exclamation mark before the name."""


def deltas(*fragments: Fragment, regular: bool = True) -> list[ToolCallDelta]:
    assembler = ToolCallAssembler()
    for index, call_id, name, arguments in fragments:
        function = {"name": name, "arguments": arguments}
        assembler.add({"tool_calls": [{"index": index, "id": call_id, "function": function}]})
    return assembler.finish(regular=regular).deltas


def outcome(delta: ToolCallDelta) -> Outcome:
    if isinstance(delta.content, ToolCall):
        assert delta.parse_status is ToolCallParseStatus.success
        return str(delta.content.tool_name), delta.content.call_id, delta.content.arguments
    assert delta.parse_status is ToolCallParseStatus.failure
    return f"!{delta.tool_name or ''}", delta.call_id or "", delta.content


def made(*fragments: Fragment, regular: bool = True) -> list[Outcome]:
    return [outcome(delta) for delta in deltas(*fragments, regular=regular)]


F, G = ("f", "a", {"x": 1}), ("g", "b", {"y": 2})
_ = None

SAME_CALLS: dict[str, list[Fragment]] = {
    "one index each": [(0, "a", "f", '{"x":'), (1, "b", "g", ""), (0, _, _, "1}"), (1, _, _, '{"y":2}')],
    "one index for all": [
        (0, "a", "f", ""), (0, "", _, '{"x":'), (0, "", _, "1}"),
        (0, "b", "g", ""), (0, "", _, '{"y":'), (0, "", _, "2}"),
    ],
    "no index": [(_, "a", "f", ""), (_, _, _, '{"x":1}'), (_, "b", "g", '{"y"'), (_, _, _, ":2}")],
    "whole calls without an index": [(_, "a", "f", '{"x":1}'), (_, "b", "g", '{"y":2}')],
    "the id in every fragment": [(0, "a", "f", ""), (0, "b", "g", ""), (0, "b", _, '{"y":2}'), (0, "a", _, '{"x":1}')],
    "the id late": [(0, _, "f", ""), (0, "a", _, '{"x":1}'), (0, _, "g", ""), (0, _, _, '{"y":'), (0, "b", _, "2}")],
    "the id alone, last": [(0, _, "f", '{"x":1}'), (0, "a", _, ""), (1, _, "g", '{"y":2}'), (1, "b", _, _)],
    "another id in every fragment": [
        (0, "a", "f", ""), (0, "r1", _, '{"x":'), (0, "r2", _, "1}"), (1, "b", "g", ""), (1, "r3", _, '{"y":2}'),
    ],
    "the same, of one index": [
        (0, "a", "f", ""), (0, "r1", _, '{"x":'), (0, "r2", _, "1}"), (0, "b", "g", ""), (0, "r3", _, '{"y":2}'),
    ],
    "the name in every fragment": [(0, "a", "f", '{"x":'), (0, "a", "f", "1}"), (0, "b", "g", '{"y":2}')],
    "the name in every fragment, the id in the first": [
        (0, "a", "f", '{"x":'), (0, _, "f", "1}"), (0, _, "f", ""), (0, "b", "g", '{"y":2}'), (0, _, "g", ""),
    ],
    "the arguments before the name": [(4, _, _, '{"x":'), (9, _, _, '{"y":2}'), (4, "a", "f", "1}"), (9, "b", "g", "")],
    "the same, by id": [(0, "a", _, '{"x":1}'), (0, "b", _, '{"y":2}'), (0, "a", "f", ""), (0, "b", "g", "")],
    "id, name and arguments apart": [
        (0, "a", _, ""), (0, _, "f", ""), (0, _, _, '{"x":1}'), (0, "b", _, ""), (0, _, "g", ""), (0, _, _, '{"y":2}'),
    ],
    "objects": [(0, "a", "f", {"x": 1}), (1, "b", "g", {"y": 2})],
    "another id even where nothing comes": [
        (0, "a", "f", ""), (0, "r1", _, '{"x":1}'), (0, "r2", _, ""), (0, "b", "g", ""), (0, "r3", _, '{"y":2}'),
    ],
    "an index that is a text": [("0", "a", "f", '{"x":'), ("1", "b", "g", '{"y":2}'), ("0", _, _, "1}")],
    "an index that comes late": [(_, "a", "f", ""), (0, _, _, '{"x":1}'), (_, "b", "g", ""), (1, _, _, '{"y":2}')],
    "blanks around": [(0, "a", "f", " "), (0, _, _, '{"x":1}'), (0, _, _, "\n"), (0, "b", "g", '{"y":2} ')],
}  # fmt: skip


@pytest.mark.parametrize("fragments", SAME_CALLS.values(), ids=SAME_CALLS.keys())
def test_two_calls_however_they_are_numbered(fragments: list[Fragment]) -> None:
    assert made(*fragments) == [F, G]


def test_the_order_is_that_in_which_they_begin() -> None:
    assert made((1, "b", "g", '{"y":2}'), (0, "a", "f", '{"x":1}')) == [G, F]


def test_two_calls_of_one_tool() -> None:
    assert [found[2] for found in made((0, _, "f", '{"x":1}'), (0, _, "f", '{"x":2}'))] == [{"x": 1}, {"x": 2}]
    one_id = made((0, "k", "f", '{"x":'), (1, "k", "f", '{"y":'), (0, "k", _, "1}"), (1, "k", _, "2}"))
    assert [found[2] for found in one_id] == [{"x": 1}, {"y": 2}]
    assert one_id[0][1] == "k" != one_id[1][1]


def test_one_call_alone_has_all_that_comes() -> None:
    assert made((0, "a", "f", ""), (1, _, _, '{"x":'), (2, _, _, "1}")) == [F]
    assert made((_, "a", "f", ""), (_, "r", _, '{"x":'), (_, "s", _, "1}")) == [F]


@pytest.mark.parametrize(
    "fragments",
    [
        # Whose the arguments are is not known.
        [(0, "a", "f", ""), (0, "b", "g", ""), (0, _, _, '{"x":1}')],
        [(0, "a", "f", ""), (0, "b", "g", ""), (0, _, _, '{"x":1}'), (0, _, _, '{"y":2}')],
        [(0, "a", "f", '{"x":'), (0, "b", "g", '{"y":'), (0, _, _, "1}"), (0, _, _, "2}")],
        [(0, _, "f", ""), (0, _, "g", ""), (0, "a", _, '{"x":1}'), (0, "b", _, '{"y":2}')],
        [(0, _, "f", ""), (0, _, "g", ""), (0, _, "f", '{"x":1}'), (0, _, "g", '{"y":2}')],
        [(0, "a", "f", ""), (0, "b", "g", ""), (0, "r1", _, '{"x":1}'), (0, "r2", _, '{"y":2}')],
        [(_, "a", "f", ""), (_, "b", "g", ""), (7, _, _, '{"x":1}')],
        [(0, _, _, '{"x":1}'), (0, "a", "f", ""), (0, _, _, '{"y":2}'), (0, "b", "g", "")],
        [(0, "a", "f", ""), (1, "b", "g", ""), (5, _, _, '{"x":1}')],
        # The name may have come in two pieces.
        [(0, "a", "get_", ""), (0, _, "f", '{"x":1}')],
        [(_, "a", "get_", ""), (_, _, "f", ""), (_, _, _, '{"x":1}')],
    ],
)
def test_arguments_that_may_be_of_several_calls_are_a_failure(fragments: list[Fragment]) -> None:
    found = made(*fragments)
    assert found
    assert all(name.startswith("!") for name, *_rest in found), found


def test_a_name_that_comes_again_is_no_call_without_arguments() -> None:
    [first, second] = made((0, _, "f", '{"x":1}'), (0, _, "f", ""))
    assert first[2] == {"x": 1}
    assert second[::2] == ("!f", "")


def test_no_arguments_are_none_only_where_the_reply_is_complete() -> None:
    assert made((0, "a", "f", "")) == [("f", "a", {})]
    assert made((0, "a", "f", _)) == [("f", "a", {})]
    assert made((0, "a", "f", "null")) == [("f", "a", {})]
    assert made((0, "a", "f", ""), regular=False) == [("!f", "a", "")]
    assert made((0, "a", "f", '{"x":1}'), (1, "b", "g", '{"y":'), regular=False) == [F, ("!g", "b", '{"y":')]
    assert made((0, "a", "f", "{}"), regular=False) == [("f", "a", {})]


@pytest.mark.parametrize("broken", ["{oops", "[1]", "5", '"x"', '{"x":NaN}', '{"x":1}}', '{"x":1}{"y":2}', "[" * 5000])
def test_arguments_that_are_no_object_are_a_failure(broken: str) -> None:
    assert made((0, "a", "f", broken)) == [("!f", "a", broken)]
    message = {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": broken}}]}
    assert [outcome(delta) for delta in whole_calls(message, regular=True).deltas] == [("!f", "a", broken)]


def test_ids_are_made_and_each_is_one_calls() -> None:
    without = made((0, _, "f", "{}"), (1, "", "g", "{}"))
    assert len({call_id for _name, call_id, _arguments in without} - {""}) == 2
    assert made((0, 0, "f", "{}")) == [("f", "0", {})]
    twice = {"tool_calls": [{"id": "a", "function": {"name": name, "arguments": "{}"}} for name in "fg"]}
    first, second = whole_calls(twice, regular=True).calls
    assert first.call_id == "a" != second.call_id


def test_other_forms_of_a_call() -> None:
    for holder in (
        {"tool_calls": {"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}},
        {"tool_calls": [None, {"id": "a", "name": "f", "arguments": {"x": 1}}]},
    ):
        assert [outcome(delta) for delta in whole_calls(holder, regular=True).deltas] == [F]
        assembler = ToolCallAssembler()
        assembler.add(holder)
        assert [outcome(delta) for delta in assembler.finish(regular=True).deltas] == [F]
    [older] = whole_calls({"function_call": {"name": "f", "arguments": '{"x":1}'}}, regular=True).calls
    assert (older.tool_name, older.arguments) == ("f", {"x": 1})
    assert whole_calls({"tool_calls": None}, regular=True).deltas == []
    for odd in ("f", 5):
        with pytest.raises(TypeError):
            whole_calls({"tool_calls": odd}, regular=True)


def test_halves_of_surrogate_pairs_in_arguments() -> None:
    assert made((0, "a", "f", '{"x":"\ud83d'), (0, _, _, '\ude00"}')) == [("f", "a", {"x": "😀"})]
    assert made((0, "a", "f", '{"x":"\\ud8'), (0, _, _, '3d\\ude00"}')) == [("f", "a", {"x": "😀"})]
    assert made((0, "a", "f", '{"x":"\\ud83d"}')) == [("f", "a", {"x": "\ufffd"})]
    assert made((0, "a", "f", '{"x":"\ud83d"}')) == [("f", "a", {"x": "\ufffd"})]
    assert made((0, "a", "f", '{"x":"\ud83d')) == [("!f", "a", '{"x":"\ufffd')]


# ---- any split, any numbering, any order -----------------------------------------------------------------------------

ARGUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.none() | st.integers() | st.text(max_size=6) | st.lists(st.booleans(), max_size=2),
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
CALLS = st.lists(st.tuples(st.sampled_from(["f", "g", "get_weather"]), ARGUMENTS), min_size=1, max_size=4)


def split(draw: Any, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def streams(draw: Any) -> tuple[list[Outcome], list[Fragment], bool]:
    """Calls, their fragments, and whether these say for certain what belongs together."""
    calls = [(name, f"id{place}", arguments) for place, (name, arguments) in enumerate(draw(CALLS))]
    numbering = draw(st.sampled_from(["each", "all 0", "none", "from 7 down"]))
    naming = draw(st.sampled_from(["first", "every", "late", "never", "random"]))
    each: list[list[Fragment]] = []
    for place, (name, call_id, arguments) in enumerate(calls):
        index = {"each": place, "all 0": 0, "none": None, "from 7 down": 7 - place}[numbering]
        texts = ["", *split(draw, json.dumps(arguments))]
        late = draw(st.integers(0, len(texts) - 1)) if naming == "late" else 0
        fragments: list[Fragment] = []
        for number, text in enumerate(texts):
            given_id = call_id if naming == "every" or (naming != "never" and number == late) else None
            if naming == "random" and number:
                given_id = f"{call_id}-{number}"
            fragments.append((index, given_id, name if number == 0 else None, text))
        each.append(fragments)
    mixed = draw(st.booleans())
    if mixed:
        order = draw(st.permutations([place for place, fragments in enumerate(each) for _ in fragments]))
        rest = [iter(fragments) for fragments in each]
        sent = [next(rest[place]) for place in order]
    else:
        sent = [fragment for fragments in each for fragment in fragments]
    certain = naming == "every" or numbering in ("each", "from 7 down")
    return calls, sent, certain or not mixed


@settings(derandomize=True, max_examples=400, deadline=None)
@given(streams())
def test_what_comes_out_is_what_went_in_or_a_failure(stream: tuple[list[Outcome], list[Fragment], bool]) -> None:
    calls, fragments, certain = stream
    wanted = [(name, arguments) for name, _id, arguments in calls]
    found = made(*fragments)
    succeeded = [(name, arguments) for name, _id, arguments in found if not name.startswith("!")]
    for success in succeeded:
        assert success in wanted, "arguments that no call had"
        assert succeeded.count(success) <= wanted.count(success)
    for name, call_id, arguments in found:
        if not name.startswith("!") and call_id.startswith("id") and "-" not in call_id:
            assert (name, call_id, arguments) in calls, "another call's id"
    random_ids_without_an_index = any("-" in str(f[1]) for f in fragments) and fragments[0][0] is None
    if certain and not random_ids_without_an_index:
        assert sorted(succeeded, key=str) == sorted(wanted, key=str)
    assert len({call_id for _name, call_id, _arguments in found}) == len(found)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(streams(), st.data())
def test_a_reply_that_is_cut_has_no_arguments_that_were_not_sent(
    stream: tuple[list[Outcome], list[Fragment], bool], data: st.DataObject
) -> None:
    calls, fragments, _certain = stream
    end = data.draw(st.integers(0, len(fragments)))
    for name, _id, arguments in made(*fragments[:end], regular=False):
        assert name.startswith("!") or (name, arguments) in [(call[0], call[2]) for call in calls]


@given(JSON, st.data())
def test_an_object_has_ended_at_its_last_character_and_not_before(value: Any, data: st.DataObject) -> None:
    text = json.dumps({"a": value}, ensure_ascii=data.draw(st.booleans()))
    scan = ObjectScan()
    for piece in split(data.draw, text[:-1]):
        scan.feed(piece)
        assert not scan.ended
    scan.feed(text[-1] + "\n")
    assert (scan.ended, scan.surplus) == (True, False)
    scan.feed(" x")
    assert scan.surplus


@settings(derandomize=True)
@given(st.text() | st.dictionaries(st.text(), st.integers()).map(json.dumps))
def test_arguments_are_an_object_or_nothing(text: str) -> None:
    found = parse_arguments(text)
    assert found is None or isinstance(found, dict)


def test_many_fragments_take_time_in_proportion() -> None:
    """No attribution looks at everything again: 20,000 fragments of 2,000 calls are put together in well under 5 s."""
    import time

    started = time.process_time()
    for numbering in (lambda number: 0, lambda number: None, lambda number: number):
        heads: list[Fragment] = [(numbering(number), f"i{number}", "f", "") for number in range(2000)]
        bodies: list[Fragment] = [
            (numbering(number), f"r{place}" if place % 2 else None, None, '{"x":1' if place < 5 else " ")
            for place in range(9)
            for number in range(2000)
        ]
        made(*heads, *bodies)
    assert time.process_time() - started < 15
