"""Checks of listing, registering and unregistering: they are idempotent, and complete or without effect."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

from llamastack.api.base import RoutedObject
from llamastack.provider import errors
from llamastack.provider.errors import LlamaStackError, NotFoundError, NotSupportedError, UnsupportedObjectError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.configured import ConfiguredProvider
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.suite import Suite


def new_object(subject: ConfiguredProvider) -> Any:
    """A resource of the settings. Raises NotApplicable if they name none."""
    if not subject.settings.objects:
        raise NotApplicable(f"name a {subject.pair.label} that can be registered in x-conformance.objects")
    return subject.pair.adapter.validate_python(subject.settings.objects[0])


async def names(running: Running) -> list[str]:
    return [item.identifier for item in await running.list_objects()]


class RegistrationChecks(Suite):
    """Checks of providers whose API is routed by resources."""

    @check(
        "listing.objects",
        tier=Tier.live,
        mend="list each resource once, complete, and with its own provider_id or none",
    )
    async def test_listing_objects(self, subject: Subject) -> None:
        """the provider lists resources of its kind, each name once, and none of another provider"""
        async with subject.shared() as running:
            await self.prepare(running)
            listed = await running.list_objects()
        for item in listed:
            if not isinstance(item, RoutedObject):
                raise CheckFailure(f"it lists a {type(item).__name__}", wanted=f"a {subject.pair.label}")
            subject.pair.adapter.validate_json(subject.pair.adapter.dump_json(item))
            if item.provider_id not in ("", None, running.provider_id):
                raise CheckFailure(f"'{item.identifier}' has the provider_id '{item.provider_id}'")
        twice = [name for name, count in Counter(item.identifier for item in listed).items() if count > 1]
        if twice:
            raise CheckFailure(f"listed more than once: {', '.join(twice)}")

    @check("listing.steady", tier=Tier.live, mend="list what is served, in a stable order")
    async def test_listing_steady(self, subject: Subject) -> None:
        """the provider lists the same twice"""
        async with subject.shared() as running:
            await self.prepare(running)
            first = [item.identifier for item in await running.list_objects()]
            again = [item.identifier for item in await running.list_objects()]
        if first != again:
            raise CheckFailure(f"first {first}, then {again}")

    @check("registration.listed", tier=Tier.live, mend="accept a resource that is served already, every time")
    async def test_registration_listed(self, subject: Subject) -> None:
        """a resource that the provider lists can be registered repeatedly, and nothing changes"""
        async with subject.start() as running:
            await self.prepare(running)
            listed = await running.list_objects()
            if not listed:
                raise NotApplicable("the provider lists nothing")
            for _ in range(2):
                await running.register_directly(listed[0].model_copy())
            if await names(running) != [item.identifier for item in listed]:
                raise CheckFailure(
                    f"'{listed[0].identifier}' was registered twice, and it lists {await names(running)}"
                )

    @check(
        "registration.unserved",
        tier=Tier.live,
        mend="raise UnsupportedObjectError, or its subclass for the kind of resource, with the resource's identifier",
    )
    async def test_registration_unserved(self, subject: Subject) -> None:
        """a resource that the backend does not serve is refused with an Unsupported...Error (400) that names it"""
        async with subject.start() as running:
            await self.prepare(running)
            for item in self._refused_objects(subject):
                await _expect_refusal(running, item)

    @check(
        "registration.not-half",
        tier=Tier.live,
        mend="change nothing before it is certain that the resource is accepted",
    )
    async def test_registration_not_half(self, subject: Subject) -> None:
        """after a refusal the provider lists the same as before, and the stack does not know the resource"""
        async with subject.start() as running:
            await self.prepare(running)
            before = await names(running)
            for item in self._refused_objects(subject):
                try:
                    await running.register(item)
                except LlamaStackError:
                    pass
                else:
                    raise CheckFailure(f"'{item.identifier}' was registered", wanted="a refusal")
                if await names(running) != before:
                    raise CheckFailure(f"it listed {before}, and lists {await names(running)} after a refusal")

    def _refused_objects(self, subject: Subject) -> list[Any]:
        found = self.unserved_objects(subject)
        if not found:
            raise NotApplicable("the suite knows no resource that this provider must refuse")
        return found

    @check(
        "registration.works",
        tier=Tier.live,
        capability="registration",
        mend="serve and list the resource once register_* has returned",
    )
    async def test_registration_works(self, subject: Subject) -> None:
        """a new resource can be registered twice, and then it is listed once"""
        async with subject.start() as running:
            item = new_object(subject)
            for _ in range(2):
                await running.register(item)
                await running.register_directly(item)
            listed = await names(running)
            await running.unregister(item.identifier)
            if listed.count(item.identifier) != 1:
                raise CheckFailure(f"'{item.identifier}' was registered, and it lists {listed}")

    @check(
        "registration.refused",
        tier=Tier.live,
        capability="registration",
        declared=False,
        mend="declare `registration` as supported in the spec's capabilities where it works",
    )
    async def test_registration_refused(self, subject: Subject) -> None:
        """a provider that does not declare `registration` accepts no resource that it does not list"""
        async with subject.start() as running:
            await self.prepare(running)
            listed = await names(running)
            offered = [subject.pair.adapter.validate_python(o) for o in subject.settings.objects]
            for item in (*(o for o in offered if o.identifier not in listed), *self.unserved_objects(subject)):
                await _expect_refusal(running, item)

    @check(
        "unregister.works",
        tier=Tier.live,
        capability="unregister",
        mend="undo in unregister_* what register_* did, and do not list the resource any more",
    )
    async def test_unregister_works(self, subject: Subject) -> None:
        """a resource that was unregistered is not listed any more and can be registered again"""
        async with subject.start() as running:
            item = new_object(subject)
            for _ in range(2):
                await running.register(item)
                await running.unregister(item.identifier)
                if item.identifier in await names(running):
                    raise CheckFailure(f"'{item.identifier}' was unregistered and is still listed")
            with suppress(NotFoundError):  # both are correct for a resource that is gone
                await running.unregister_directly(item)

    @check(
        "unregister.refused",
        tier=Tier.live,
        capability="unregister",
        declared=False,
        mend="declare `unregister` as supported in the spec's capabilities where it works",
    )
    async def test_unregister_refused(self, subject: Subject) -> None:
        """a provider that does not declare `unregister` still serves a resource after it was unregistered"""
        async with subject.start() as running:
            await self.prepare(running)
            listed = await running.list_objects()
            if not listed:
                raise NotApplicable("the provider lists nothing")
            await running.register(listed[0])
            await running.unregister(listed[0].identifier)
            if listed[0].identifier not in await names(running):
                raise CheckFailure(f"'{listed[0].identifier}' was unregistered and is gone")


async def _expect_refusal(running: Running, item: Any) -> None:
    pair = running.subject.pair
    wanted = f"{_refusal_of(pair.object_name)} that names '{item.identifier}'"
    mend = f"raise {_refusal_of(pair.object_name)} in {pair.register_hook}, with the identifier of the {pair.label}"
    try:
        await running.register_directly(item)
    except UnsupportedObjectError as error:
        if item.identifier in error.message:
            return
        got = f"the refusal does not name '{item.identifier}': {error.message}"
    except NotSupportedError as error:
        got = f"NotSupportedError: {error.message}"
    else:
        got = f"'{item.identifier}' ({type(item).__name__}) was taken"
    raise CheckFailure(got, wanted=wanted, mend=mend)


def _refusal_of(kind: str) -> str:
    """The class of the error for a kind of resource, such as `memory_bank`: its own, or that of every kind."""
    own = f"Unsupported{''.join(word.capitalize() for word in kind.split('_'))}Error"
    return own if hasattr(errors, own) else UnsupportedObjectError.__name__
