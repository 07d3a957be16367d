"""Speech: a beep for each word."""

from __future__ import annotations

import io
import math
import wave
from array import array
from collections.abc import AsyncIterator

from llamastack.provider import Deps, ObjectNotFoundError, UnsupportedObjectError
from llamastack_speech.api import Speech, Voice, VoicesProtocolPrivate, WordMark
from pydantic import ValidationError

from llamastack_provider_beeper.config import BeeperConfig, Tone

_SAMPLES_PER_S = 8000


class BeeperSpeech(Speech, VoicesProtocolPrivate):
    """Serves the voices of its config, and registered voices.

    The stack stores registrations and registers them again at every start, so a dict is enough here.
    """

    def __init__(self, config: BeeperConfig) -> None:
        self._configured = config.voices
        self._registered: dict[str, Voice] = {}

    async def list_voices(self) -> list[Voice]:
        """The voices that are served now. The stack calls this every few seconds."""
        own = [Voice(identifier=name, settings=tone.model_dump()) for name, tone in self._configured.items()]
        return own + [voice for name, voice in self._registered.items() if name not in self._configured]

    async def register_voice(self, voice: Voice) -> None:
        """Accept a voice, or raise the reason why not. The same voice may be registered again."""
        name = voice.identifier
        try:
            tone = Tone.model_validate(voice.settings)
        except ValidationError as error:
            faults = [f"settings.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
            raise UnsupportedObjectError(name, reason="; ".join(faults)) from None
        if self._configured.get(name, tone) != tone:
            raise UnsupportedObjectError(name, reason="the config has another voice of this name")
        self._registered[name] = voice

    async def unregister_voice(self, voice: Voice) -> None:
        """Undo a registration; an unknown voice is no error."""
        self._registered.pop(voice.identifier, None)

    async def forget_voice(self, voice: Voice) -> None:
        """Another process of the same stack has unregistered it."""
        await self.unregister_voice(voice)

    async def synthesize(self, voice: str, text: str) -> bytes:
        tone = self._tone(voice)
        file = io.BytesIO()
        with wave.open(file, "wb") as audio:
            audio.setnchannels(1)
            audio.setsampwidth(2)
            audio.setframerate(_SAMPLES_PER_S)
            audio.writeframes(_beep(tone) * len(text.split()))
        return file.getvalue()

    async def mark_words(self, voice: str, text: str) -> AsyncIterator[WordMark]:
        # Before the stream begins, so that an unknown voice is a reply with its own status.
        return _marks(self._tone(voice), text)

    def _tone(self, name: str) -> Tone:
        tones = {known: Tone.model_validate(voice.settings) for known, voice in self._registered.items()}
        tones |= self._configured
        if name not in tones:
            raise ObjectNotFoundError("voice", name, available=tones, param="voice")
        return tones[name]


def _beep(tone: Tone) -> bytes:
    """Three quarters of the time a sine wave, then a pause; 16-bit samples, as a WAV file has them."""
    samples = _SAMPLES_PER_S * tone.word_ms // 1000
    heard = samples * 3 // 4
    step = math.tau * tone.pitch_hz / _SAMPLES_PER_S
    return array("h", (int(8000 * math.sin(step * i)) if i < heard else 0 for i in range(samples))).tobytes()


async def _marks(tone: Tone, text: str) -> AsyncIterator[WordMark]:
    for place, word in enumerate(text.split()):
        start = place * tone.word_ms
        yield WordMark(word=word, start_ms=start, end_ms=start + tone.word_ms * 3 // 4)


async def get_provider_impl(config: BeeperConfig, deps: Deps) -> BeeperSpeech:
    """The provider. `deps` gives it access to the stack."""
    return BeeperSpeech(config)
