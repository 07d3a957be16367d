"""Removes stop texts from replies, because Text Generation Inference leaves them in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from llamastack.provider.streams import closing

STOPPED = "stop_sequence"


def without_stop(text: str, finish_reason: object, stops: Sequence[str]) -> str:
    """`text` without the stop text that ended it."""
    return text[: len(text) - _at_end(text, finish_reason, stops)]


def _at_end(text: str, finish_reason: object, stops: Sequence[str]) -> int:
    if finish_reason != STOPPED:
        return 0
    return max((len(stop) for stop in stops if text.endswith(stop)), default=0)


async def stream_without_stop(
    chunks: AsyncIterator[Mapping[str, Any]], stops: Sequence[str]
) -> AsyncIterator[Mapping[str, Any]]:
    """Chunks of the OpenAI dialect, with chats' `delta.content` or with `text`.

    A chunk is held back while its end may be the beginning of a stop text.
    """
    held: list[Mapping[str, Any]] = []
    async with closing(chunks):
        async for chunk in chunks:
            held.append(chunk)
            finish = _choice(chunk).get("finish_reason")
            if finish is not None:
                _cut(held, _at_end("".join(map(_text, held)), finish, stops))
            undecided = 0 if finish is not None else _undecided("".join(map(_text, held)), stops)
            while held and sum(len(_text(chunk)) for chunk in held[1:]) >= undecided:
                yield held.pop(0)
    for chunk in held:
        yield chunk


def _undecided(text: str, stops: Sequence[str]) -> int:
    """The length of the end of `text` that is a stop text or the beginning of one."""
    longest = min(len(text), max(map(len, stops)))
    return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)


def _cut(held: Sequence[Mapping[str, Any]], surplus: int) -> None:
    """Remove `surplus` characters from the end. A chunk without text left loses its log probabilities, too."""
    for chunk in reversed(held):
        text, choice = _text(chunk), _choice(chunk)
        if surplus <= 0:
            return
        if text:
            holder, name = _place(choice)
            holder[name] = text[: max(0, len(text) - surplus)]
            if surplus >= len(text):
                choice["logprobs"] = None
            surplus -= len(text)


def _choice(chunk: Mapping[str, Any]) -> dict[str, Any]:
    choices = chunk.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _place(choice: dict[str, Any]) -> tuple[dict[str, Any], str]:
    delta = choice.get("delta")
    return (delta, "content") if isinstance(delta, dict) else (choice, "text")


def _text(chunk: Mapping[str, Any]) -> str:
    holder, name = _place(_choice(chunk))
    text = holder.get(name)
    return text if isinstance(text, str) else ""
