"""The conformance suite of the API `speech`."""

from pathlib import Path

from llamastack_speech.conformance import SpeechConformance


class TestBeeper(SpeechConformance):
    provider_type = "beeper"
    config = Path(__file__).parent / "provider.yaml"
