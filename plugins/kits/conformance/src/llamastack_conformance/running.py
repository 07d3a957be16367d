"""A running stack with the provider under test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from llamastack.api.created_ids import mark_of
from llamastack.api.definition import MethodDefinition
from llamastack.api.id_fields import IdFields
from llamastack.api.inspect import ProviderStatus
from llamastack.api.pagination import Page
from llamastack.provider.error_translation import as_stack_error
from llamastack.provider.errors import LlamaStackError, raise_translated
from llamastack.stack import Stack
from llamastack.stack.supervisor import SupervisedProvider
from llamastack_conformance.backend_tap import Tap
from llamastack_conformance.checks import CheckFailure
from llamastack_conformance.configured import ConfiguredProvider
from llamastack_conformance.stack_folder import StackFolder
from llamastack_conformance.watching import becomes


class Running:
    """A started stack with the provider under test.

    subject: the provider, its spec and its run config. stack: the stack, as a program has it. provider_id: of the
    provider in the stack. tap: the tap between the provider and its backend, if a check asked for one. folder: of the
    stack, if a check stops the stack and starts another one; what the stack before has left registered there is this
    one's now.
    """

    def __init__(
        self,
        subject: ConfiguredProvider,
        stack: Stack,
        provider_id: str,
        tap: Tap | None = None,
        folder: StackFolder | None = None,
    ) -> None:
        self.subject = subject
        self.stack = stack
        self.provider_id = provider_id
        self._tap = tap
        self._folder = folder
        self._registered: list[str] = [] if folder is None else folder.adopt()

    @property
    def tap(self) -> Tap:
        """The tap. Raises TypeError if the check asked for none."""
        if self._tap is None:
            raise TypeError("this check started its stack without a tap")
        return self._tap

    @property
    def folder(self) -> StackFolder:
        """The stack's folder. Raises TypeError if the check started it without one."""
        if self._folder is None:
            raise TypeError("this check started its stack without a folder")
        return self._folder

    @property
    def is_tapped(self) -> bool:
        """Whether there is a tap."""
        return self._tap is not None

    @property
    def instance(self) -> SupervisedProvider:
        """The provider as the stack holds it: its status, and why it is down."""
        return next(i for i in self.stack.instances[self.subject.api] if i.provider_id == self.provider_id)

    @property
    def provider(self) -> Any:
        """The provider itself, not wrapped by the stack. Raises CheckFailure while it is down."""
        found = self.instance.provider
        if found is None:
            raise CheckFailure(f"the provider is down: {self.instance.reason}", wanted="a provider that runs")
        return found

    @property
    def calls(self) -> Any:
        """The API as a user calls it."""
        return self.stack.api(self.subject.api)

    @property
    def table(self) -> Any:
        """The resource API."""
        return self.stack.api(self.subject.pair.resource_api)

    async def list_objects(self) -> list[Any]:
        """The provider's own listing."""
        return list(await self._ask_provider(self.subject.pair.list_hook))

    async def register_directly(self, item: Any) -> None:
        """Call the provider's `register_*`, without the stack."""
        pair = self.subject.pair
        await self._ask_provider(pair.register_hook, **{pair.object_name: item})

    async def unregister_directly(self, item: Any) -> None:
        """Call the provider's `unregister_*`, without the stack."""
        pair = self.subject.pair
        await self._ask_provider(pair.unregister_hook, **{pair.object_name: item})

    async def _ask_provider(self, hook: str, **arguments: Any) -> Any:
        """The stack translates what a provider raises, such as httpx's errors of connections, so this does it, too."""
        try:
            return await getattr(self.provider, hook)(**arguments)
        except Exception as error:
            subject = self.subject
            raise_translated(error, as_stack_error(error, self.provider_id, subject.provider_type, subject.redact))

    async def listed(self) -> dict[str, Any]:
        """The resources of this provider by name, as users see them, all pages."""
        found: list[Any] = []
        after: dict[str, str] = {}
        while True:
            answer = await getattr(self.table, self.subject.pair.list_hook)(**after)
            found += answer.data if isinstance(answer, Page) else answer
            if not isinstance(answer, Page) or not answer.has_more or answer.last_id is None:
                return {item.identifier: item for item in found if item.provider_id == self.provider_id}
            after = {"after": answer.last_id}

    async def becomes_usable(self, names: Iterable[str], within_s: float) -> list[str]:
        """Which of these resources cannot be called, after some time for the provider to take them."""
        calls = [self.qualified(name) for name in names]

        def left() -> list[str]:
            return [name for name in calls if self.stack.find_resource(self.subject.api, name) is None]

        await becomes(lambda: not left(), within_s)
        return [name.removeprefix(self.qualified("")) for name in left()]

    def first_object(self) -> str:
        """The first name in the provider's listing, as the stack knows it; any name while the provider is down.

        Raises CheckFailure if there is none.
        """
        pair = self.subject.pair
        if self.instance.status is ProviderStatus.down:
            return self.subject.settings.unserved
        for name in (*self.instance.served, *self._registered):
            return name
        raise CheckFailure(f"the provider lists no {pair.label}", wanted=f"a {pair.label}, or one in x-conformance")

    async def register(self, item: Any) -> None:
        """Register a resource at this provider, as a user does; it is unregistered in the end."""
        pair = self.subject.pair
        await getattr(self.table, pair.register_hook)(item.model_copy(update={"provider_id": self.provider_id}))
        self._registered.append(item.identifier)

    async def unregister(self, identifier: str) -> None:
        """Undo a registration, as a user does."""
        await getattr(self.table, self.subject.pair.unregister_hook)(identifier)
        self._registered = [name for name in self._registered if name != identifier]

    @property
    def registered(self) -> tuple[str, ...]:
        """The names that checks have registered, here or in an earlier stack of the folder."""
        return tuple(dict.fromkeys(self._registered))

    def leave(self) -> None:
        """Leave what is registered, and the backend, to the next stack in the folder. Call it last."""
        self.folder.leave(self.registered)
        self._registered.clear()

    async def clean_up(self, *, unregisters: bool = True) -> None:
        """Unregister what the checks have left registered: a backend outlives the stack."""
        if self._tap is not None:
            self._tap.clear()
            await self._tap.listen()
        for identifier in self.registered if unregisters else ():
            with suppress(LlamaStackError):  # the check has reported it already, or has caused it
                await self.unregister(identifier)

    def qualified(self, identifier: str) -> str:
        """A name that means this provider's resource, even if another provider has the same name."""
        return f"{self.provider_id}/{identifier}"

    def marked(self, method: MethodDefinition, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments with ids of the provider itself, as callers of the stack know these ids."""
        mark = mark_of(self.subject.api, self.provider_id)
        changes = IdFields(self.subject.definition.created_ids).arguments(method)
        return {
            name: changes[name](value, lambda own: own + mark) if name in changes else value
            for name, value in arguments.items()
        }

    async def becomes_healthy(self, within_s: float) -> bool:
        """Whether the provider becomes healthy within the time; not waited for if it never will."""
        await becomes(lambda: self._is_healthy or self._has_given_up, within_s)
        return self._is_healthy

    @property
    def _is_healthy(self) -> bool:
        return self.instance.status is ProviderStatus.healthy

    @property
    def _has_given_up(self) -> bool:
        return self.instance.status is ProviderStatus.down and self.instance.permanent
