"""A third party's plugin: a whole new API with objects of its own, a command, middleware, and ears for every hook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import click
from pydantic import BaseModel

from llamastack.api.base import RoutedObject, WireModel
from llamastack.api.definition import ResourceKind
from llamastack.api.webmethod import ResourceAction, webmethod
from llamastack.provider import Deps, InlineProviderSpec, hookimpl
from llamastack.provider.builtin_apis import routed_apis
from llamastack.provider.commands import CliCommand
from llamastack.provider.routes import Middleware


class Voice(RoutedObject):
    language: str = "en"


class Speech(WireModel):
    sound: str


class Speaking(Protocol):
    """Text to speech."""

    @webmethod("/speech/speak", routed_by="voice", capability="speak")
    async def speak(self, voice: str, text: str) -> Speech:
        """Say it."""
        ...


class Voices(Protocol):
    """Voices."""

    @webmethod("/voices/list", methods=("GET",), resource_action=ResourceAction.LIST)
    async def list_voices(self) -> list[Voice]:
        """All."""
        ...

    @webmethod("/voices/get", methods=("GET",), resource_action=ResourceAction.GET)
    async def get_voice(self, identifier: str) -> Voice | None:
        """One."""
        ...

    @webmethod("/voices/register", resource_action=ResourceAction.REGISTER)
    async def register_voice(self, voice: Voice) -> None:
        """Add."""
        ...

    @webmethod("/voices/unregister", resource_action=ResourceAction.UNREGISTER)
    async def unregister_voice(self, identifier: str) -> None:
        """Remove."""
        ...


class VoicesProtocolPrivate(Protocol):
    async def list_voices(self) -> list[Voice]: ...

    async def register_voice(self, voice: Voice) -> None: ...


APIS = routed_apis(Speaking, Voices, ResourceKind("speech", "voices", "voice", Voice, VoicesProtocolPrivate))


class NoConfig(BaseModel):
    """It has no settings."""


class Loudspeaker:
    def __init__(self) -> None:
        self.voices = ["anna"]

    async def list_voices(self) -> list[Voice]:
        return [Voice(identifier=name) for name in self.voices]

    async def register_voice(self, voice: Voice) -> None:
        self.voices.append(voice.identifier)

    async def speak(self, voice: str, text: str) -> Speech:
        return Speech(sound=f"{voice}: {text}")


async def make(config: NoConfig, deps: Deps) -> Loudspeaker:
    return Loudspeaker()


SPEC = InlineProviderSpec(
    api="speech",
    provider_type="loudspeaker",
    description="Speaks",
    config_class="plugin_fake:NoConfig",
    factory="plugin_fake:make",
)


@click.command()
def shout() -> None:
    click.echo("HELLO")


class Plugin:
    """heard: (hook, what it was told), in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    @hookimpl
    def llamastack_apis(self) -> Any:
        return APIS

    @hookimpl
    def llamastack_cli_commands(self) -> Any:
        return [CliCommand("shout", "Shout.", "plugin_fake:shout")]

    @hookimpl
    def llamastack_middleware(self) -> list[Middleware]:
        def stamped(app: Any) -> Any:
            async def around(scope: Any, receive: Any, send: Any) -> None:
                async def send_stamped(message: Any) -> None:
                    if message["type"] == "http.response.start":
                        message["headers"].append((b"x-stamped", b"yes"))
                    await send(message)

                await app(scope, receive, send_stamped)

            return around

        return [Middleware(stamped)]

    @hookimpl
    @asynccontextmanager
    async def llamastack_stack_lifespan(self, stack: Any) -> AsyncIterator[None]:
        self.heard.append(("started", sorted(stack.apis)))
        yield
        self.heard.append(("stopping", (await stack.speech.speak(voice="anna", text="bye")).sound))

    @hookimpl
    def llamastack_object_registered(self, api: str, object: Any) -> None:
        self.heard.append(("registered", (api, object.identifier)))

    @hookimpl
    def llamastack_object_unregistered(self, api: str, object: Any) -> None:
        self.heard.append(("unregistered", (api, object.identifier)))

    @hookimpl
    def llamastack_request_finished(self, request: Any) -> None:
        self.heard.append(("finished", (request.method, request.path, request.status)))
        raise ValueError("a plugin's own fault")


PLUGIN = Plugin()
WRONG = type("Wrong", (), {"llamastack_apis": hookimpl(lambda self, nonsense: [])})()
