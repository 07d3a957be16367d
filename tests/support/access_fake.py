"""A third party's plugins for access and around calls: a static table of API keys, and hooks that a test scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamastack.provider import AuthenticationError, hookimpl
from llamastack.provider.context import Principal, current_context
from llamastack.provider.hookspecs import Action, IncomingRequest, Resource
from llamastack.provider.provider_call import CallEvent, Proceed, ProviderCall

KEYS = {"ann-key": Principal("ann", {"group": "admins"}), "bob-key": Principal("bob", {"group": "users"})}


class StaticKeys:
    """Who has which key; admins may do all, others call and see what `open_to_all` holds."""

    def __init__(self) -> None:
        self.open_to_all = {"m"}
        self.asked: list[tuple[str | None, str, Resource]] = []

    @hookimpl
    async def llamastack_authenticate(self, request: IncomingRequest) -> Principal | None:
        given = request.headers.get("authorization")
        if given is None:
            return None
        principal = KEYS.get(given.removeprefix("Bearer "))
        if principal is None:
            raise AuthenticationError("this key is not known")
        return principal

    @hookimpl
    async def llamastack_authorize(
        self, principal: Principal | None, action: Action, resource: Resource
    ) -> bool | None:
        self.asked.append((None if principal is None else principal.id, action, resource))
        if principal is None:
            return False
        if principal.attributes["group"] == "admins":
            return True
        return action in (Action.READ, Action.CALL) and resource.identifier in self.open_to_all


class Denying:
    """A second plugin: no opinion but on what it denies, by the names of resources and instances."""

    def __init__(self) -> None:
        self.denied: set[str | None] = set()
        self.fails: Exception | None = None
        self.asked = 0

    @hookimpl
    async def llamastack_authorize(self, resource: Resource) -> bool | None:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return False if {resource.identifier, resource.provider_id} & self.denied else None


class Around:
    """Does around calls what a test says; keeps the calls and the principals it saw."""

    def __init__(self) -> None:
        self.does: Callable[[ProviderCall, Proceed], Any] | None = None
        self.calls: list[ProviderCall] = []
        self.principals: list[str | None] = []

    @hookimpl
    async def llamastack_around_call(self, call: ProviderCall, proceed: Proceed) -> Any:
        self.calls.append(call)
        principal = current_context().principal
        self.principals.append(None if principal is None else principal.id)
        return await (proceed(call) if self.does is None else self.does(call, proceed))


class Listening:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[CallEvent] = []

    @hookimpl
    def llamastack_call_started(self, event: CallEvent) -> None:
        self.events.append(event)

    @hookimpl
    def llamastack_call_finished(self, event: CallEvent) -> None:
        self.events.append(event)


KEYS_PLUGIN = StaticKeys()
DENYING = Denying()
AROUND = Around()
LISTENING = Listening()
PLAIN = type("Plain", (), {"llamastack_authorize": hookimpl(lambda self, action: True)})()
MISSPELT = type("Misspelt", (), {"llamastack_authenticate": hookimpl(lambda self, nonsense: None)})()
PLUGINS = (KEYS_PLUGIN, DENYING, AROUND, LISTENING)
ACCESS = {"llamastack.required_plugins": {"keys": "access_fake:KEYS_PLUGIN", "denying": "access_fake:DENYING"}}
CALLS = {"llamastack.plugins": {"around": "access_fake:AROUND", "listening": "access_fake:LISTENING"}}


def forget() -> None:
    """Make the plugins as new."""
    KEYS_PLUGIN.__init__()  # type: ignore[misc]
    DENYING.__init__()  # type: ignore[misc]
    AROUND.__init__()  # type: ignore[misc]
    LISTENING.__init__()  # type: ignore[misc]
