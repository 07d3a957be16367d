"""The stack: assembled from a run config, alive between `start` and `stop`, or inside `async with`."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from llamastack.api.base import RoutedObject
from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.provider.api_handle import ApiHandle, Dispatch
from llamastack.provider.deps import Progress
from llamastack.provider.errors import ProviderUnavailableError
from llamastack.provider.store import Store
from llamastack.provider.typed_calls import Apis
from llamastack.stack.access import AccessControl
from llamastack.stack.call_chain import CallChain
from llamastack.stack.config import LoadedConfig, load_config
from llamastack.stack.context_in_own_task import OwnTask
from llamastack.stack.created_id_routing import IdRoutedCalls
from llamastack.stack.discovery import STORE_GROUP, Discovery, DiscoveryError, default_discovery
from llamastack.stack.hook_calls import contained_lifespan
from llamastack.stack.inspection import StackInspect
from llamastack.stack.plugins import Plugins
from llamastack.stack.resolver import Plan, provider_api, resolve
from llamastack.stack.resource_routing import RoutedCalls, implemented_dispatch, resource_dispatch
from llamastack.stack.resources.catalogue import ResourceCatalogue
from llamastack.stack.resources.kept_registrations import StoreFollower
from llamastack.stack.supervisor import SupervisedProvider
from llamastack.stack.yaml_source import ConfigError, ConfigIssue


class StackStartError(Exception):
    """The stack could not start; everything that was open is closed again."""


def _ignore_progress(_: SupervisedProvider, __: Progress) -> None:
    """Progress that nobody watches."""


class Stack(Apis):
    """A running stack.

    ```python
    async with Stack.from_config("run.yaml") as stack:
        reply = await stack.inference.chat_completion(model="m", messages=[UserMessage(content="Hi")])
    ```

    Every API of the run config is an attribute (`inference`, `models`, `memory`, ..., `inspect`), with the methods of
    its Protocol.

    config: its run config. hooks: the plugins. discovery: the installed packages. `from_config` finds all three.
    """

    def __init__(
        self,
        config: LoadedConfig,
        *,
        discovery: Discovery,
        hooks: Plugins,
        apis: Mapping[str, ApiDefinition],
        on_progress: Callable[[SupervisedProvider, Progress], None] = _ignore_progress,
    ) -> None:
        self.config = config
        self.hooks = hooks
        self.plan: Plan = resolve(config, apis, discovery)
        """The provider instances that the run config asks for, in the order of their start."""
        self.discovery = discovery
        self._all_apis = apis
        self._on_progress = on_progress
        self.store = self._make_store()
        """Keeps what survives a restart."""
        hooks.add_plugins_of_stack(config)
        self._calls = CallChain(hooks)
        self._life = OwnTask(self._opened, "this stack")
        self._wait_s = math.inf
        self.instances: dict[str, list[SupervisedProvider]] = {}
        """Provider instances by API, in config order."""
        self.apis: dict[str, ApiDefinition] = {}
        """Definitions of the APIs that this stack serves."""
        self._handles: dict[str, ApiHandle] = {}
        self._tables: dict[str, ResourceCatalogue] = {}
        self._routed_calls: dict[str, RoutedCalls] = {}
        self._id_routed_calls: dict[str, IdRoutedCalls] = {}
        self._inspect = StackInspect(self.apis, self.instances, self._tables, self.access)

    @classmethod
    def from_config(
        cls,
        source: str | Path | Mapping[str, object],
        *,
        discovery: Discovery | None = None,
        folder: Path | None = None,
        on_progress: Callable[[SupervisedProvider, Progress], None] = _ignore_progress,
    ) -> Self:
        """Make a stack from a YAML file, the name of an installed run config, or a mapping.

        folder: where its files are kept, instead of the place that follows from the source.
        Raises ConfigError, and DiscoveryError for a required plugin that is broken. Nothing is started before
        `async with`.
        """
        found = discovery or default_discovery()
        hooks = Plugins(found)
        apis = hooks.apis()
        hooks.check_required()
        try:
            config = load_config(source, apis, found, sections=hooks.config_sections())
            if folder is not None:
                config = replace(config, folder=folder)
            return cls(config, discovery=found, hooks=hooks, apis=apis, on_progress=on_progress)
        except ConfigError as error:
            left_out = [ConfigIssue(None, (), f"a plugin is left out: {broken.cause}") for broken in hooks.broken]
            raise ConfigError(error.source, [*error.faults, *left_out]) from None

    def _make_store(self) -> Store:
        configured = self.config.run.store
        name = configured.type if configured else ("sqlite" if self.config.folder else "memory")
        settings = configured.config if configured else {}
        try:
            cls = self.discovery.find(STORE_GROUP, name).load()
            validated = self.config.validated(cls.config_class, ("store", "config"), settings)
            store: Store = cls(validated, self.config.folder)
        except DiscoveryError as error:
            raise self.config.error(("store", "type"), str(error)) from None
        except ValueError as error:
            raise self.config.error(("store",), str(error)) from None
        return store

    def check_sections(self) -> None:
        """Raises ConfigError when a section of the config does not fit this stack."""
        for section in self.hooks.config_sections():
            if section.check is not None:
                section.check(self)

    @contextmanager
    def assembled(self) -> Iterator[None]:
        """Around a look at what it would serve, in an event loop, without starting it. No call succeeds."""
        self._assemble()
        try:
            yield
        finally:
            self._forget()

    @property
    def access(self) -> AccessControl:
        """The decisions of plugins about who may do what."""
        return self._calls.access

    # ---- the APIs ------------------------------------------------------------------------------------------------

    def api(self, name: str) -> ApiHandle:
        """An API of this stack by name.

        Raises LookupError naming the ones that it has.
        """
        handle = self._handles.get(name)
        if handle is None:
            if not self._life.runs:
                raise LookupError("the stack is not running: use 'async with', or 'await stack.start()'")
            raise LookupError(f"this stack has no API '{name}'; it has {', '.join(self._handles)}")
        return handle

    def routed_calls(self, name: str) -> RoutedCalls:
        """Calls of methods that providers of the API `name` may have beside it, for requests that name an object.

        Raises LookupError as `api` does, and for an API whose calls are not routed by objects.
        """
        calls = self._routed_calls.get(name)
        if calls is None:
            self.api(name)
            raise LookupError(f"the calls of API '{name}' are not routed by the objects that they name")
        return calls

    def find_resource(self, api: str, name: str) -> RoutedObject | None:
        """What calls of `name` are sent to, as it is known now, without asking providers and for every principal.

        api: a routed API, such as `inference`. name: best `provider_id/identifier`. None if it cannot be called now.
        """
        try:
            found = self._tables[api].resolve(name)
        except (KeyError, ProviderUnavailableError):
            return None
        return None if found is None else found[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.api(name)
        except LookupError as error:
            raise AttributeError(str(error)) from None

    # ---- life ----------------------------------------------------------------------------------------------------

    async def start(self, *, wait_s: float = math.inf) -> None:
        """Start the stack. `async with` does the same, and stops it.

        wait_s: seconds to wait for the first attempt of every provider. Those that need longer go on starting while
        the stack runs. With `on_provider_error: fail` all are waited for.

        It lives in a task of its own, so that another task may stop it, as in a notebook or in the fixture of a test.
        When the caller is cancelled, what was started is stopped again. A stack that was stopped can be started again.

        Raises StackStartError, PluginError where a plugin fails, and RuntimeError where it runs already.
        """
        self._wait_s = wait_s
        await self._life.start()

    async def stop(self) -> None:
        """Stop it, and wait until every provider has released everything. Does nothing if it does not run.

        Raises RuntimeError in another event loop than it was started in.
        """
        await self._life.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            try:
                await self.store.open([api.pair.resource_api for api in self._all_apis.values() if api.pair])
            except OSError as error:
                raise StackStartError(str(error)) from error
            opened.push_async_callback(self.store.close)
            background = await _background_tasks(opened)
            opened.callback(self._forget)
            self._assemble()
            follower = StoreFollower(self.store, self._tables.values())
            await follower.take()
            for table in self._tables.values():
                await table.load_listings()
            started = [instance for api in self.plan.start_order for instance in self.instances[api]]
            for instance in started:
                opened.push_async_callback(instance.stop)
                background.start_soon(instance.run, name=f"{instance.api}/{instance.provider_id}")
            await self._wait_for(started)
            following = await _background_tasks(opened)
            following.start_soon(follower.follow, name="store")
            for plugin, lifespan in self.hooks.collect("llamastack_stack_lifespan", self, required=True):
                await opened.enter_async_context(contained_lifespan(plugin, lifespan))
            yield

    async def _wait_for(self, started: Sequence[SupervisedProvider]) -> None:
        fails = self.config.run.on_provider_error == "fail"
        with anyio.move_on_after(math.inf if fails else self._wait_s):
            for instance in started:
                await instance.first_attempt.wait()
                if instance.reason is not None and fails:
                    raise StackStartError(instance.unavailable().message) from instance.cause
        for instance in started:
            instance.tell_late_start()
        if fails:
            self._require_objects()

    def _require_objects(self) -> None:
        faults = []
        for table in self._tables.values():
            refused = {name: why for i in table.instances for name, why in table.refused(i).items()}
            for place, item in enumerate(self.config.objects(table.pair.resource_api)):
                if item.identifier in refused:
                    what = f"{table.pair.label} '{item.identifier}' is not taken: {refused[item.identifier]}"
                    faults.append(self.config.fault((table.pair.resource_api, place), what))
        if faults:
            raise StackStartError(str(ConfigError(self.config.source, faults)))

    def _forget(self) -> None:
        """Nothing is served any more. The instances stay: they tell how they ended."""
        self._handles.clear()
        self._tables.clear()
        self._routed_calls.clear()
        self._id_routed_calls.clear()

    def _assemble(self) -> None:
        run, folder = self.config.run, self.config.folder
        self.instances.update({plan.api: [] for plan in self.plan.providers})
        for plan in sorted(self.plan.providers, key=lambda plan: self.plan.start_order.index(plan.api)):
            needs = [provider_api(name, self._all_apis) for name in plan.dependencies]
            self.instances[plan.api].append(
                SupervisedProvider(
                    plan,
                    self._all_apis,
                    needs=[instance for api in needs for instance in self.instances.get(api, ())],
                    apis=self._handles,
                    folder=None if folder is None else folder / "providers" / plan.api / plan.provider_id,
                    store=self.store,
                    start_timeout_s=run.start_timeout_s,
                    refresh_interval_s=run.refresh_interval_s,
                    on_progress=self._on_progress,
                    on_polled=self._polled,
                )
            )
        for api, instances in self.instances.items():
            pair = self._all_apis[api].pair
            if pair is None:
                self._id_routed_calls[api] = IdRoutedCalls(self._all_apis[api], instances, self._calls)
            else:
                table = self._tables[api] = ResourceCatalogue(
                    pair, instances, self.store, max_age_s=run.refresh_interval_s, notify=self.hooks.notify
                )
                table.declare(self.config.objects(pair.resource_api))
                self._routed_calls[api] = RoutedCalls(table, self._all_apis[api].methods, self._calls)
        for name, definition in self._all_apis.items():
            own = definition.implemented_by_stack and definition.pair is None
            if own or provider_api(name, self._all_apis) in self.instances:
                self.apis[name] = definition
                check_of = None if definition.implemented_by_stack else partial(self._dispatch_of, only_checked=True)
                self._handles[name] = ApiHandle(definition, self._dispatch_of, check_of)

    def _dispatch_of(self, method: MethodDefinition, *, only_checked: bool = False) -> Dispatch:
        definition = self._all_apis[method.api]
        if definition.pair is not None:
            if definition.name == definition.pair.resource_api:
                return resource_dispatch(self._tables[definition.pair.routed_api], method, self.access)
            return self._routed_calls[definition.name].dispatch_of(method, only_checked=only_checked)
        if definition.implemented_by_stack:
            return implemented_dispatch(self._inspect, method, self.access)
        return self._id_routed_calls[definition.name].dispatch_of(method, only_checked=only_checked)

    async def _polled(self, instance: SupervisedProvider) -> None:
        table = self._tables.get(instance.api)
        if table is not None:
            await table.polled(instance)


async def _background_tasks(opened: AsyncExitStack) -> TaskGroup:
    """A task group that is cancelled, not waited for, when `opened` ends, and that does not wrap the error of that."""
    group = await anyio.create_task_group().__aenter__()

    async def end() -> None:
        group.cancel_scope.cancel()
        await group.__aexit__(None, None, None)

    opened.push_async_callback(end)
    return group
