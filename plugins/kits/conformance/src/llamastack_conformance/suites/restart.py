"""Checks with a stack that stops and starts again, with its registry and its backend."""

from __future__ import annotations

from typing import Any

import anyio

from llamastack.api.base import RoutedObject
from llamastack.provider.errors import ConflictError, LlamaStackError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.kept_data import KeptData
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.registration import names, new_object
from llamastack_conformance.suites.suite import Suite

_USABLE_BY_S = 10.0
_BETWEEN_S = 0.1
_LOST = (404, 409, 502, 503)
_ALIAS = "conformance-alias-7f3a"
_OWN_FIELDS = RoutedObject.model_fields.keys()


class RestartChecks(Suite):
    """Checks of every provider whose API returns what it keeps."""

    @check(
        "restart.content",
        tier=Tier.live,
        mend="when a provider starts, and when `register_*` is called again, leave everything that is kept as it is",
    )
    async def test_restart_content(self, subject: Subject) -> None:
        """what calls have put into the provider is there and equal after a restart of the stack"""
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                await self.put_content(running)
                before = await self.content(running)
                running.leave()
            kept.require()
            async with subject.start(folder=folder) as running:
                await usable(running)
                require_equal(before, await self.content(running), "after a restart")

    @check(
        "restart.stored",
        tier=Tier.live,
        mend="write to the backend before a call returns, and not when the provider stops or some time later",
    )
    async def test_restart_stored(self, subject: Subject) -> None:
        """what a call has put into the provider is in the backend when it returns: another instance finds it at once"""
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                await self.put_content(running)
                kept.require_shared()
                async with subject.start(beside=folder) as other:  # it reads first: a read may write what was buffered
                    found = await self._found_by(other, running.registered)
                before = await self.content(running)
            kept.require()
            require_equal(before, found, "for another instance")

    async def _found_by(self, running: Running, names: tuple[str, ...]) -> Any:
        """The content as this instance has it; or its error."""
        try:
            await usable(running, names)
            return await self.content(running)
        except LlamaStackError as error:
            return error.message
        except CheckFailure as failure:
            return failure.got


class RestartedObjectChecks(Suite):
    """Checks of providers whose API is routed by resources."""

    @check(
        "restart.objects",
        tier=Tier.live,
        mend="take in register_* what was registered before: the stack calls it for every registration at each start",
    )
    async def test_restart_objects(self, subject: Subject) -> None:
        """after a restart the listed and registered resources and the aliases are there, equal, and can be called"""
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                await self.prepare(running)
                await _register_settings(running)
                await _register_alias(running)
                await self.call(running)
                before, own = await running.listed(), set(await names(running))
                running.leave()
            async with subject.start(folder=folder) as running:
                await usable(running, before)
                after = await running.listed()
                require_equal(_comparable(before), _comparable(after), "after a restart")
                if lost := own - set(await names(running)):
                    raise CheckFailure(f"after a restart the provider itself lists no {', '.join(sorted(lost))}")
                await self.call(running)

    @check(
        "restart.again",
        tier=Tier.live,
        capability="registration",
        mend="let register_* find what is there already, and leave it and its data as they are",
    )
    async def test_restart_again(self, subject: Subject) -> None:
        """to register a resource again changes nothing, before and after a restart; another one under its name is
        refused with ConflictError (409), and the first still works
        """
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                await running.register(new_object(subject))
                await self.put_content(running)
                content = await self._content(running)
                await self._again(running, content)
                running.leave()
            async with subject.start(folder=folder) as running:
                await usable(running, [new_object(subject).identifier])
                if not kept.outlives:
                    content = await self._content(running)
                await self._again(running, content)

    async def _again(self, running: Running, content: Any) -> None:
        """Register the same again, and something else under its name."""
        item = new_object(running.subject)
        listed = await names(running)
        for _ in range(2):
            await running.register(item)
            await running.register_directly(item.model_copy(update=_mine(running)))
        other = another(item)
        if other is not None:
            try:
                await running.register(other)
            except ConflictError:
                pass
            else:
                raise CheckFailure(f"'{item.identifier}' was registered with other settings", wanted="ConflictError")
        require_equal(listed, await names(running), f"after '{item.identifier}' was registered again")
        require_equal(content, await self._content(running), f"after '{item.identifier}' was registered again")
        await self.call(running)

    @check(
        "restart.new-registry",
        tier=Tier.live,
        capability="registration",
        mend="let register_* take over what is in the backend already, with its data",
    )
    async def test_restart_new_registry(self, subject: Subject) -> None:
        """when the registry is lost and the backend is not, a resource can be registered again, with what it had"""
        item = new_object(subject)
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                await running.register(item)
                await self.put_content(running)
                content = await self._content(running)
                running.leave()
            folder.lose_registry()
            async with subject.start(folder=folder) as running:
                await running.register(item)
                if (count := (await names(running)).count(item.identifier)) != 1:
                    raise CheckFailure(f"'{item.identifier}' was registered again and is listed {count} times")
                if kept.outlives:
                    require_equal(content, await self._content(running), "with a new registry")
                await self.call(running)

    @check(
        "restart.unregistered",
        tier=Tier.live,
        capability="unregister",
        mend="remove in unregister_* what outlives the process, too",
    )
    async def test_restart_unregistered(self, subject: Subject) -> None:
        """a resource that was unregistered is not there after a restart; registered again, it has nothing of before"""
        if not subject.declares("registration"):
            raise NotApplicable("the provider declares no `registration`")
        item = new_object(subject)
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                await running.register(item)
                empty = await self._content(running)
                await self.put_content(running)
                await running.unregister(item.identifier)
                running.leave()
            async with subject.start(folder=folder) as running:
                if item.identifier in {*(await running.listed()), *(await names(running))}:
                    raise CheckFailure(f"'{item.identifier}' was unregistered, and is listed after a restart")
                await running.register(item)
                require_equal(empty, await self._content(running), "unregistered, and registered after a restart")

    @check(
        "restart.forgotten",
        tier=Tier.live,
        capability="unregister",
        mend="let go in forget_* of what this process alone holds, and remove nothing that is shared",
    )
    async def test_restart_forgotten(self, subject: Subject) -> None:
        """`forget_*`, which the stack calls when another worker has unregistered a resource, removes nothing at the
        backend: the other worker may have registered it again
        """
        item = new_object(subject)
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                forget = getattr(running.provider, subject.pair.forget_hook, None)
                if forget is None:
                    raise NotApplicable(f"the provider has no `{subject.pair.forget_hook}`")
                kept.require_shared()
                await running.register(item)
                await self.put_content(running)
                content = await self._content(running)
                await forget(item.model_copy(update=_mine(running)))
                await running.register_directly(item.model_copy(update=_mine(running)))
                found = await self._content(running)
            kept.require()
            require_equal(content, found, "forgotten, and registered again")

    @check(
        "restart.behind-its-back",
        tier=Tier.live,
        capability="registration",
        mend="raise NotFoundError when the backend has lost the resource, list what the backend has, and make it again "
        "in register_*",
    )
    async def test_restart_behind_its_back(self, subject: Subject) -> None:
        """when a resource was removed at the backend, calls fail (404, 409, 502 or 503) until it is made again; they do
        not go on as if it were only empty, and the stack notices
        """
        item = new_object(subject)
        async with subject.kept_folder() as folder, subject.start(folder=folder) as running:
            kept = KeptData(running, folder)
            await running.register(item)
            await self.put_content(running)
            content = await self._content(running)
            if type(self).remove_behind_its_back is Suite.remove_behind_its_back:
                kept.require()
                kept.require_shared()
            await self.remove_behind_its_back(subject, running, item)
            await self._fails_without(running, item.identifier, content)
            for _ in range(2):  # what the first poll has found is registered again before the second begins
                await running.instance.refresh(force=True)
            if not await self._takes_content(running):
                shown = (await running.listed()).get(item.identifier)
                if shown is None or shown.unavailable_reason is None:
                    raise CheckFailure(f"'{item.identifier}' was removed at the backend, and is listed as {shown!r}")
                return
            require_equal(content, await self._content(running), "removed at the backend, and used again")

    async def _takes_content(self, running: Running) -> bool:
        """Whether the resource is made again: the stack does that some time after it has noticed."""
        with anyio.move_on_after(_USABLE_BY_S):
            while True:
                try:
                    await self.put_content(running)
                except LlamaStackError as error:
                    if error.status not in _LOST:
                        raise
                    await anyio.sleep(_BETWEEN_S)
                else:
                    return True
        return False

    async def _fails_without(self, running: Running, name: str, content: Any) -> None:
        """A call fails, or the provider has made the resource again. Raises CheckFailure otherwise."""
        try:
            after = await self._content(running)
            await self.call(running)
        except LlamaStackError as error:
            if error.status not in _LOST:
                raise CheckFailure(
                    f"'{name}' was removed at the backend; a call raises {type(error).__name__} ({error.status}): "
                    f"{error.message}"
                ) from None
            return
        if content is not None and after == content:
            raise NotApplicable(f"'{name}' is still there: nothing removes it at the backend")
        if name not in await names(running):
            raise CheckFailure(f"'{name}' was removed at the backend; a call is answered, with the content {after!r}")

    async def _content(self, running: Running) -> Any:
        """What the provider keeps; None if its API returns nothing."""
        try:
            return await self.content(running)
        except NotApplicable:
            return None


def another(item: Any) -> Any:
    """An object of the same name and type with another setting; None if its type has no settings that can differ."""
    for name, value in item:
        if name in _OWN_FIELDS:
            continue
        if type(value) in (int, float):
            return item.model_copy(update={name: value + 1})
        if isinstance(value, dict):
            return item.model_copy(update={name: {**value, "conformance-other": "1"}})
    return None


def require_equal(before: Any, after: Any, when: str) -> None:
    """Raise CheckFailure unless both are equal."""
    if before != after:
        raise CheckFailure(f"{when} it is {after!r}", wanted=f"what was there before: {before!r}")


async def usable(running: Running, wanted: Any = ()) -> None:
    """Wait until what was left registered, and these resources, can be called. Raises CheckFailure if some cannot."""
    if running.subject.definition.pair is None:
        return
    left = await running.becomes_usable({*wanted, *running.registered}, _USABLE_BY_S)
    if left:
        reasons = await running.listed()
        why = [f"'{name}' ({_reason(reasons.get(name))})" for name in sorted(left)]
        raise CheckFailure(f"registered before, and not to be called now: {', '.join(why)}")


def _reason(item: Any) -> str:
    return "it is not listed" if item is None else item.unavailable_reason or "no reason is given"


async def _register_settings(running: Running) -> None:
    if running.subject.declares("registration"):
        for given in running.subject.settings.objects:
            await running.register(running.subject.pair.adapter.validate_python(given))


async def _register_alias(running: Running) -> None:
    """Register an alias of the first resource. Raises NotApplicable if there is none."""
    listed = await running.listed()
    target = next((item for item in listed.values() if item.unavailable_reason is None), None)
    if target is None:
        raise NotApplicable("the provider lists nothing, and the settings name nothing that can be registered")
    own = {"identifier": _ALIAS, "provider_resource_id": target.identifier}
    await running.register(target.model_copy(update=own))


def _mine(running: Running) -> dict[str, str]:
    return {"provider_id": running.provider_id}


def _comparable(listed: dict[str, Any]) -> dict[str, Any]:
    """The listing without what a provider may change at any time: the metadata of what it lists itself."""
    return {name: item.model_dump(mode="json", exclude={"metadata"}) for name, item in listed.items()}
