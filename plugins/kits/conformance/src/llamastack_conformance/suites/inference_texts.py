"""Checks of texts and of the arguments of tool calls: the suite changes them in recorded answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from llamastack.api.common import ToolCall
from llamastack.api.inference import (
    ChatCompletionResponse,
    CompletionResponse,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.replaying import changed_events, instead_of_the_last, is_text, loaded, reframed
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import read, text_of_piece, text_of_reply
from llamastack_conformance.suites.inference_features import STREAMED_CALL, TOOL_CALL, FeatureChecks
from llamastack_conformance.suites.inference_kinds import KindChecks
from llamastack_conformance.suites.inference_ways import ANSWERS

SPACES = "\n\n  \tdef f(x):\n\n    if x:\r\n\treturn  'a   b'  \n \t\n  "
LONG_TEXT = "".join(f"line {number} of a long reply\n" for number in range(800))
_PIECES = ("\n\n  ", "\t", " def f():\n\n    return  1  \n", "  ", "\r\n", " ")
_TYPED: dict[str, Any] = {
    "city": "Paris",
    "whole": 7,
    "large": 2**53 + 1,
    "real": 0.5,
    "yes": True,
    "no": False,
    "nothing": None,
    "digits": "007",
    "word": "true",
    "nested": {"list": [1, "1", [2.5, None], {"deep": False}], "empty": {}},
    "none": [],
}


def same_text(what: str, found: str, wanted: str) -> None:
    """Raise CheckFailure where two texts differ; it shows the first place that does."""
    if found != wanted:
        pairs = enumerate(zip(found, wanted, strict=False))
        place = next((at for at, (mine, other) in pairs if mine != other), min(len(found), len(wanted)))
        shown = slice(max(0, place - 20), place + 60)
        raise CheckFailure(
            f"{what}: {len(found)} characters, from {place} on different: {found[shown]!r}",
            wanted=f"{len(wanted)} characters: {wanted[shown]!r}",
        )


class TextChecks(FeatureChecks, KindChecks):
    """The checks of streamed texts, and of the types of arguments."""

    @check(
        "wholes.pieces",
        tier=Tier.live,
        capability="streaming",
        mend="yield each piece as it came: with its spaces and line breaks, also one that has nothing else, and uncut",
    )
    async def test_wholes_pieces(self, subject: Subject) -> None:
        """a stream says exactly what the backend sent, in every way: pieces of white space, spaces at the ends of
        pieces, indented code, and 20,000 characters
        """
        tried = False
        async with subject.shared(tapped=True) as running:
            for kind in await self.kinds(running):
                if not kind.streamed:
                    continue
                result, answer = await answered(running, kind.known_as, partial(kind.make, "Say qzplain."))
                texts = texts_of(result)
                for new in (_PIECES, (LONG_TEXT,)):
                    known = _replacements(texts, answer, new)
                    if not known:
                        continue
                    tried = True
                    running.tap.disturb(inject=instead_of_the_last(running.tap, _with_texts(answer, known)))
                    found = "".join(texts_of(await kind.make("Say qzplain.")))
                    same_text(kind.name, found, "".join(known.get(text, text) for text in texts))
        if not tried:
            raise NotApplicable("the backend's answers do not hold the pieces as JSON")

    @check(
        "tools.types",
        tier=Tier.live,
        capability="tools",
        mend="parse the arguments as JSON once, and change no value: numbers, booleans, null, lists and objects stay",
    )
    async def test_tools_types(self, subject: Subject) -> None:
        """arguments of a tool call keep their JSON types, whole and streamed: large integers, numbers, booleans, null,
        lists, objects, and texts that look like a number
        """
        tried = False
        async with subject.shared(tapped=True) as running:
            for stream in (False, True) if subject.declares("streaming") else (False,):

                async def ask(stream: bool = stream) -> Any:
                    return await read(await self._weather(running, **({"stream": True} if stream else {})))

                what = STREAMED_CALL if stream else TOOL_CALL
                result, answer = await answered(running, what, ask)
                changed = _with_arguments(answer, _calls_of(result)[0].arguments)
                if changed is None:
                    continue
                tried = True
                running.tap.disturb(inject=instead_of_the_last(running.tap, changed))
                calls = _calls_of(await ask())
                if len(calls) != 1 or _typed(calls[0].arguments) != _typed(_TYPED):
                    raise CheckFailure(f"{what}: {[call.arguments for call in calls]}", wanted=str(_TYPED))
        if not tried:
            raise NotApplicable("the backend's answers do not hold the arguments as JSON")


async def answered(running: Running, name: str, call: Callable[[], Any]) -> tuple[Any, bytes]:
    """What a call returns, and the backend's answer to it; a model computes once for each name.

    Raises NotApplicable if that answer is no text.
    """
    result = await ANSWERS.prime(running.subject, running.tap, name, call)
    asked = [request for request in running.tap.requests if request.body]
    answer = running.tap.inject(asked[-1]) if asked and running.tap.inject else None
    if not isinstance(answer, bytes) or not is_text(answer):
        raise NotApplicable("the backend's answers are no text")
    return result, answer


def _replacements(texts: Sequence[str], answer: bytes, new: Sequence[str]) -> dict[str, str]:
    """New texts for those pieces that the answer holds as JSON, each as often as the stream has it."""
    body = reframed(answer, lambda body: body)
    found = [
        text for text in dict.fromkeys(texts) if text.isascii() and body.count(_quoted(text)) == texts.count(text) > 0
    ]
    return dict(zip((text for text in found if text), new, strict=False))


def _with_texts(answer: bytes, known: Mapping[str, str]) -> bytes:
    pattern = re.compile(b"|".join(re.escape(_quoted(text)) for text in known))
    return reframed(answer, lambda body: pattern.sub(lambda found: _quoted(known[json.loads(found[0])]), body))


def _quoted(text: str) -> bytes:
    return json.dumps(text).encode()


def _calls_of(result: Any) -> list[ToolCall]:
    """The tool calls of a whole or streamed native reply. Raises CheckFailure if it has none."""
    if isinstance(result, list):
        deltas = [piece.event.delta for piece in result if isinstance(piece.event.delta, ToolCallDelta)]
        contents = [delta.content for delta in deltas if delta.parse_status is ToolCallParseStatus.success]
    else:
        contents = result.completion_message.tool_calls
    calls = [content for content in contents if isinstance(content, ToolCall)]
    if not calls:
        raise CheckFailure("no tool call", wanted="a call of `weather`")
    return calls


def _typed(value: Any) -> str:
    """A text in which 1, 1.0, "1" and true are different."""
    return json.dumps(value, sort_keys=True)


def _with_arguments(answer: bytes, arguments: Mapping[str, Any]) -> bytes | None:
    """The answer with other arguments in place of these: an object, a text, or texts of several events.

    None if it holds them in no such way.
    """

    def change(events: Sequence[Any]) -> bool:
        pieces: dict[str, list[tuple[Any, Any]]] = {}
        changed = False
        for holder, key in [place for event in events for place in _places(event)]:
            value = holder[key]
            if isinstance(value, dict) and value == arguments:
                holder[key] = _TYPED
                changed = True
            elif isinstance(value, str) and isinstance(key, str):
                pieces.setdefault(key, []).append((holder, key))
        for places in pieces.values():
            if loaded("".join(holder[key] for holder, key in places)) == arguments:
                for number, (holder, key) in enumerate(reversed(places)):
                    holder[key] = json.dumps(_TYPED) if number == 0 else ""
                changed = True
        return changed

    return changed_events(answer, change)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (object or list, name or number) of a value, from the outside in."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def texts_of(result: Any) -> list[str]:
    """The texts of a reply: one if it is whole, those of its pieces if it is streamed; natively or in OpenAI's form."""
    if isinstance(result, ChatCompletionResponse | CompletionResponse):
        return [text_of_reply(result)]
    pieces = result if isinstance(result, list) else [result]
    if pieces and isinstance(pieces[0], bytes):
        lines = b"".join(pieces).split(b"\n")
        data = [line.removeprefix(b"data: ") for line in lines if line.removeprefix(b"data: ").startswith(b"{")]
        pieces = [json.loads(one) for one in data]
    if pieces and isinstance(pieces[0], Mapping):
        said = [choice.get("message") or choice.get("delta") or {} for p in pieces for choice in p.get("choices") or ()]
        return [str(one.get("content") or "") for one in said]
    return [text_of_piece(piece) for piece in pieces]
