"""The API `speech`, and the API `voices` through which its voices are listed and registered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Protocol

from llamastack.api.base import JsonObject, RoutedObject, WireModel
from llamastack.api.definition import ApiDefinition, ResourceKind
from llamastack.api.pagination import Limit, Page
from llamastack.api.webmethod import ResourceAction, webmethod
from llamastack.provider.builtin_apis import routed_apis
from pydantic import Field

Text = Annotated[str, Field(min_length=1, max_length=4096)]


class Voice(RoutedObject):
    """A voice. Its `identifier` is the `voice` of a request."""

    language: str = "en"
    settings: JsonObject = Field(default_factory=dict)
    """What its provider has to know, such as a pitch. A provider refuses settings that it does not know."""


class WordMark(WireModel):
    """When a word is heard, in milliseconds from the beginning of the audio."""

    word: str
    start_ms: int
    end_ms: int


class Speech(Protocol):
    """Speak texts."""

    @webmethod("/speech/synthesize", media_type="audio/wav", routed_by="voice", capability="synthesize")
    async def synthesize(self, voice: str, text: Text) -> bytes:
        """The spoken text, as a WAV file."""
        ...

    @webmethod("/speech/marks", routed_by="voice", capability="marks")
    async def mark_words(self, voice: str, text: Text) -> AsyncIterator[WordMark]:
        """When each word of the text is heard, one event for each word."""
        ...


class Voices(Protocol):
    """The voices of the configured providers."""

    @webmethod("/voices", methods=("GET",), resource_action=ResourceAction.LIST)
    async def list_voices(
        self, language: str | None = None, limit: Limit | None = None, after: str | None = None
    ) -> Page[Voice]:
        """The voices, or those of one language."""
        ...

    @webmethod("/voices/{identifier}", methods=("GET",), resource_action=ResourceAction.GET)
    async def get_voice(self, identifier: str) -> Voice | None:
        """One voice."""
        ...

    @webmethod("/voices", resource_action=ResourceAction.REGISTER)
    async def register_voice(self, voice: Voice) -> None:
        """Add a voice."""
        ...

    @webmethod("/voices/{identifier}", methods=("DELETE",), status=204, resource_action=ResourceAction.UNREGISTER)
    async def unregister_voice(self, identifier: str) -> None:
        """Remove a voice that was registered."""
        ...


class VoicesProtocolPrivate(Protocol):
    """What the stack calls of a provider to learn about its voices."""

    async def list_voices(self) -> list[Voice]:
        """The voices that are served now."""
        ...

    async def register_voice(self, voice: Voice) -> None:
        """Accept a voice. Raises UnsupportedObjectError if it cannot be served."""
        ...


APIS: tuple[ApiDefinition, ...] = routed_apis(
    Speech,
    Voices,
    ResourceKind(
        routed_api="speech",
        resource_api="voices",
        object_name="voice",
        object_type=Voice,
        private_protocol=VoicesProtocolPrivate,
    ),
)
