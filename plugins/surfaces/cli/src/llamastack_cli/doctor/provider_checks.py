"""Starts the providers of a run config in this process, asks each what it serves, and calls each once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread

from llamastack.api.base import RoutedObject
from llamastack.api.inspect import ProviderStatus
from llamastack.api.pagination import all_listed
from llamastack.api.webmethod import ResourceAction
from llamastack.provider.commands import ProgressDisplay
from llamastack.stack import Stack
from llamastack.stack.config import StoreConfig
from llamastack.stack.plugins import Plugins
from llamastack.stack.supervisor import SupervisedProvider
from llamastack_cli.doctor.advice import address_of, advice_on_error
from llamastack_cli.doctor.calls import call_once
from llamastack_cli.doctor.config_checks import variables_of
from llamastack_cli.doctor.report import Check, Outcome, Place
from llamastack_cli.doctor.store_check import file_fault, sqlite_fault
from llamastack_cli.doctor.written_places import WrittenPlace, WrittenPlaces, moved_places, written_places

_T = TypeVar("_T")
_MOST_NAMES = 3
_REGISTERED = ("models", "shields")
"""The kinds whose registration is a question to the backend. That of a memory bank makes a collection in a database."""
_LOADS_MODELS = "allow_pull"
_PLUGINS_FOR = ("llamastack_apis", "llamastack_check_apis", "llamastack_config_sections")


class _OnlyApis(Plugins):
    """Of plugins only what makes the run config readable: the others may export calls, refuse them, or store things."""

    def implementations(self, hook: str) -> list[Any]:
        return super().implementations(hook) if hook in _PLUGINS_FOR else []

    def add_plugins_of_stack(self, config: object) -> None:
        """None is added."""


def stack_to_try(stack: Stack, folder: Path, progress: ProgressDisplay) -> Stack:
    """The same stack, which keeps nothing: with a store in memory, and its files in `folder`."""
    run, hooks = stack.config.run, _OnlyApis(stack.discovery)
    apis = hooks.apis()
    pulling = {
        (planned.api, planned.provider_id)
        for planned in stack.plan.providers
        if getattr(planned.config, _LOADS_MODELS, False)
    }
    changes: dict[str, Any] = {"store": StoreConfig(type="memory"), "on_provider_error": "retry"}
    for pair in (definition.pair for definition in apis.values() if definition.pair):
        ids = [provider.provider_id for provider in run.providers.get(pair.routed_api, ())]
        changes[pair.resource_api] = [
            item
            for item in stack.config.objects(pair.resource_api)
            if pair.resource_api in _REGISTERED and (pair.routed_api, item.provider_id or ids[0]) not in pulling
        ]
    places = written_places(stack)
    changes["providers"] = {
        api: [
            provider.model_copy(
                update={
                    "config": {
                        **provider.config,
                        **moved_places(places[api, provider.provider_id], folder, f"{api}-{provider.provider_id}"),
                    }
                }
            )
            for provider in providers
        ]
        for api, providers in run.providers.items()
    }
    config = replace(stack.config, run=run.model_copy(update=changes), folder=folder)
    return Stack(config, discovery=stack.discovery, hooks=hooks, apis=apis, on_progress=progress)


@dataclass
class ProviderChecks:
    """The checks of all providers of `stack`, which is started and stopped.

    timeout_s: the most seconds for each step of each provider. places: what the run config has them write to.
    """

    stack: Stack
    timeout_s: float
    places: WrittenPlaces

    _found: dict[tuple[str, str], list[Check]] = field(default_factory=dict, init=False)

    @property
    def found(self) -> list[Check]:
        """What was found, in the order of the run config; also where `run` raised."""
        ordered = [(planned.api, planned.provider_id) for planned in self.stack.plan.providers]
        return [check for key in ordered for check in self._found.get(key, ())]

    async def run(self) -> None:
        """Make all of them. Raises what the start and the stop of a stack raise."""
        await self.stack.start(wait_s=0)
        try:
            async with anyio.create_task_group() as group:
                for instances in self.stack.instances.values():
                    for instance in instances:
                        checks = self._found[instance.api, instance.provider_id] = []
                        group.start_soon(self._check, instance, checks)
        finally:
            await self.stack.stop()
        for instances in self.stack.instances.values():
            for instance in instances:
                if instance.stop_fault is not None:
                    checks = self._found[instance.api, instance.provider_id]
                    checks.append(self._failed_stop(instance, instance.stop_fault))

    async def _check(self, instance: SupervisedProvider, found: list[Check]) -> None:
        for place in self.places[instance.api, instance.provider_id]:
            found.append(await anyio.to_thread.run_sync(self._checked_place, instance, place))
        began = anyio.current_time()
        with anyio.move_on_after(self.timeout_s):
            await instance.first_attempt.wait()
        took = anyio.current_time() - began
        if instance.status is ProviderStatus.healthy:
            found.append(self._made(instance, "start", Outcome.OK, instance.note or "", duration_s=took))
        else:
            message = instance.reason or f"it is not ready after {self.timeout_s:g} s"
            cause = instance.cause or TimeoutError()
            found.append(self._failed(instance, "start", message, cause, took))
            found.append(self._made(instance, "call", Outcome.SKIPPED, "not called: it did not start"))
            return
        items = await self._tried(instance, "serves", found, lambda: self._listed(instance, found))
        if items is None:
            found.append(self._made(instance, "call", Outcome.SKIPPED, "not called: what it serves is not known"))
            return
        called_at = anyio.current_time()
        called = await self._tried(instance, "call", found, lambda: call_once(self.stack, instance, items))
        if called is not None:
            done, message = called
            seconds = anyio.current_time() - called_at if done else None
            outcome = Outcome.OK if done else Outcome.SKIPPED
            found.append(self._made(instance, "call", outcome, message, duration_s=seconds))

    async def _tried(
        self, instance: SupervisedProvider, name: str, found: list[Check], step: Callable[[], Awaitable[_T]]
    ) -> _T | None:
        """What a step gives; None if it failed. Its error is a check of this provider and ends those of no other."""
        began = anyio.current_time()
        error: Exception = TimeoutError()
        message = f"no answer within {self.timeout_s:g} s"
        with anyio.move_on_after(self.timeout_s):
            try:
                return await step()
            except Exception as raised:
                error, message = raised, instance.explain(raised)
        found.append(self._failed(instance, name, message, error, anyio.current_time() - began))
        return None

    async def _listed(self, instance: SupervisedProvider, found: list[Check]) -> list[RoutedObject]:
        """What it serves; those of the run config first. Adds what it says of them."""
        pair = instance.definition.pair
        if pair is None:
            return []
        method = self.stack.apis[pair.resource_api].method_for(ResourceAction.LIST).name
        began = anyio.current_time()
        listed = all_listed(self.stack.api(pair.resource_api).methods[method])
        items = [cast(RoutedObject, item) async for item in listed]
        own = [item for item in items if item.provider_id == instance.provider_id]
        declared = [item.identifier for item in self.stack.config.objects(pair.resource_api)]
        usable = [item for item in own if item.unavailable_reason is None]
        usable.sort(key=lambda item: item.identifier not in declared)
        names = [item.identifier for item in usable]
        shown = ", ".join(names[:_MOST_NAMES]) + (
            f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        )
        took = anyio.current_time() - began
        message = shown or f"no {pair.label}"
        found.append(self._made(instance, "serves", Outcome.OK, message, duration_s=took))
        for item in own:
            if item.unavailable_reason is not None:
                advice = f"use a name that is there: {shown}" if names else "use a name that the backend has"
                place = self._place_of(pair.resource_api, item.identifier)
                message = f"{pair.label} '{item.identifier}' cannot be used: {item.unavailable_reason}"
                found.append(
                    replace(self._made(instance, pair.label, Outcome.FAIL, message, advice=advice), place=place)
                )
        return usable

    # ---- checks ------------------------------------------------------------------------------------------------------

    def _checked_place(self, instance: SupervisedProvider, place: WrittenPlace) -> Check:
        """Nothing is written to the file or folder of the run config: a running server may have it.

        A SQLite file can be read beside a server; other files and folders are not opened.
        """
        path = place.path.expanduser().resolve()
        advice = f"correct `{place.field}`, or the rights of the {place.kind}"
        fault = file_fault(path)
        if fault is None and path.exists() and path.is_dir() != (place.kind == "folder"):
            fault = f"it is not a {place.kind}"
        if fault is None and place.sqlite is not None and path.exists():
            fault = sqlite_fault(path, place.sqlite)
            advice = f"move the file away to begin with an empty one, or set another `{place.field}`"
        if fault is None and place.sqlite is not None:
            found = "can be used" if path.exists() else "is not there yet; the first start makes it"
            return self._made(instance, place.kind, Outcome.OK, f"{place.field} {place.path} {found}")
        if fault is None:
            message = f"{place.field} {place.path} is not opened; the checks use an empty {place.kind}"
            return self._made(instance, place.kind, Outcome.SKIPPED, message)
        return self._made(instance, place.kind, Outcome.FAIL, f"{place.path}: {fault}", advice=advice)

    def _failed(
        self, instance: SupervisedProvider, name: str, message: str, error: BaseException, duration_s: float
    ) -> Check:
        variables = variables_of(self.stack, instance.plan.path)
        advice = advice_on_error(error, message, instance.provider_type, instance.plan.config, variables)
        message = instance.redact(message)
        return self._made(instance, name, Outcome.FAIL, message, advice=advice, duration_s=duration_s)

    def _failed_stop(self, instance: SupervisedProvider, fault: str) -> Check:
        kind = instance.provider_type
        advice = f"it may leave files and connections open: report it to the authors of the package of `{kind}`"
        return self._made(instance, "stop", Outcome.FAIL, fault, advice=advice)

    def _made(
        self,
        instance: SupervisedProvider,
        name: str,
        outcome: Outcome,
        message: str,
        *,
        advice: str | None = None,
        duration_s: float | None = None,
    ) -> Check:
        config = self.stack.config
        return Check(
            name=name,
            about=f"{instance.api} {instance.provider_id}",
            outcome=outcome,
            message=message,
            duration_s=duration_s,
            place=Place.of(config.source, config.line_of(instance.plan.path), instance.plan.path),
            backend=address_of(instance.plan.config),
            advice=advice,
        )

    def _place_of(self, resource_api: str, identifier: str) -> Place | None:
        config = self.stack.config
        written: Sequence[Mapping[str, object]] = config.value.get(resource_api) or ()
        for number, item in enumerate(written):
            if item.get("identifier") == identifier:
                return Place.of(config.source, config.line_of((resource_api, number)), (resource_api, number))
        return None
