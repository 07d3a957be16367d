"""The conformance suite of the API `speech`, for every provider of it."""

from __future__ import annotations

import io
import wave
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

from llamastack_conformance import RoutedPluginApiConformance
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.suite import Probe, refused

from llamastack_speech.api import Voice


class SpeechConformance(RoutedPluginApiConformance):
    api: ClassVar[str] = "speech"

    async def call(self, running: Running, text: str = "Say hello.") -> Any:
        """One call that every provider answers."""
        return await running.calls.synthesize(voice=running.first_object(), text=text)

    def answers(self, text: str, result: Any) -> bool:
        """Whether the result of `call` is right: a WAV file that is not empty."""
        return _length_ms(result) > 0

    async def examples(self, running: Running) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """An example call of each method."""
        arguments = {"voice": running.first_object(), "text": "hello world"}
        yield "synthesize", arguments
        yield "mark_words", arguments

    async def stream(self, running: Running) -> AsyncIterator[Any]:
        """One call with a stream of a dozen pieces or more."""
        marks: AsyncIterator[Any] = await running.calls.mark_words(voice=running.first_object(), text="la " * 20)
        return marks

    async def probe(self, running: Running, capability: str) -> Probe:
        """A call that needs the capability."""
        method = {"synthesize": "synthesize", "marks": "mark_words"}[capability]
        return Probe(method, {"voice": running.first_object(), "text": "hello"})

    def unserved_objects(self, subject: Subject) -> list[Any]:
        """Voices that every provider refuses to register."""
        return [Voice(identifier=subject.settings.unserved, settings={"no-such-setting": 1})]

    test_synthesize_refused = refused("synthesize")
    test_marks_refused = refused("marks")

    @check(
        "marks.match",
        tier=Tier.live,
        capability="marks",
        mend="yield one mark for each word, in the order of the text, with times inside the audio",
    )
    async def test_marks_match(self, subject: Subject) -> None:
        """the marks are those of the words of the text, one after the other, and end with the audio at the latest"""
        async with subject.shared() as running:
            arguments = {"voice": running.first_object(), "text": "one two  three"}
            audio = await running.calls.synthesize(**arguments)
            marks = [mark async for mark in await running.calls.mark_words(**arguments)]
        if [mark.word for mark in marks] != ["one", "two", "three"]:
            raise CheckFailure(f"marks of {[mark.word for mark in marks]}")
        times = [time for mark in marks for time in (mark.start_ms, mark.end_ms)]
        if times != sorted(times) or times[-1] > _length_ms(audio):
            raise CheckFailure(f"times in ms {times}; the audio has {_length_ms(audio)} ms")


def _length_ms(audio: bytes) -> float:
    with wave.open(io.BytesIO(audio), "rb") as file:
        return 1000 * file.getnframes() / file.getframerate()
