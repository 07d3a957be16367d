"""The provider under test: its installed spec, its run config, and stacks that are started with it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import BaseModel, SecretStr, ValidationError

from llamastack.api.definition import ApiDefinition, MethodDefinition, RoutedPair
from llamastack.api.inspect import ProviderStatus
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.faults import redactor
from llamastack.provider.spec import ProviderSpec
from llamastack.stack.config import ConfigError, is_extension, secret_fields
from llamastack.stack.discovery import PROVIDER_GROUP_PREFIX, Discovery, DiscoveryError, Installed, default_discovery
from llamastack.stack.hooks import Hooks
from llamastack.stack.instance import Instance
from llamastack.stack.stack import Stack
from llamastack.stack.yaml_source import YamlFaultsError, read_yaml
from llamastack_conformance.checks import Body, Check, CheckFailure, NotApplicable
from llamastack_conformance.settings import Settings, settings_of
from llamastack_conformance.tap import Tap, tap
from llamastack_conformance.watching import becomes

_STARTED_BY_S = 30.0
_CLEAN_UP_S = 10.0
SECOND = "-2"
_MARKER = "conformance-secret-"


class SubjectError(Exception):
    """The suite cannot begin: the run config, or what it names, is not there or is wrong."""


class Running:
    """A started stack with the provider under test in it.

    tap: what stands between it and its backend, where a check asked for one.
    """

    def __init__(self, subject: Subject, stack: Stack, provider_id: str, tap: Tap | None = None) -> None:
        self.subject = subject
        self.stack = stack
        self.provider_id = provider_id
        self._tap = tap
        self._registered: list[str] = []

    @property
    def tap(self) -> Tap:
        if self._tap is None:
            raise TypeError("this check started its stack without a tap")
        return self._tap

    @property
    def instance(self) -> Instance:
        return next(i for i in self.stack.instances[self.subject.api] if i.provider_id == self.provider_id)

    @property
    def provider(self) -> Any:
        """The provider itself, without the stack around it. Raises CheckFailure while it is down."""
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
        """The API that objects are registered with."""
        return self.stack.api(self.subject.pair.table_api)

    async def list_objects(self) -> list[Any]:
        """What the provider itself says that it serves."""
        return list(await getattr(self.provider, self.subject.pair.list_hook)())

    def first_object(self) -> str:
        """The first name that the stack knows of what the provider serves. Raises CheckFailure when there is none."""
        pair = self.subject.pair
        for name in (*self.instance.served, *self._registered):
            return name
        raise CheckFailure(f"the provider lists no {pair.label}", wanted=f"a {pair.label}, or one in x-conformance")

    async def register(self, item: Any) -> None:
        pair = self.subject.pair
        await getattr(self.table, pair.register_hook)(item.model_copy(update={"provider_id": self.provider_id}))

        self._registered.append(item.identifier)

    async def unregister(self, identifier: str) -> None:
        await getattr(self.table, self.subject.pair.unregister_hook)(identifier)
        self._registered = [name for name in self._registered if name != identifier]

    async def clean_up(self) -> None:
        """Unregister what the checks registered and left: a backend outlives the stack."""
        if self._tap is not None:
            self._tap.clear()
            await self._tap.listen()
        for identifier in dict.fromkeys(self._registered):
            with suppress(LlamaStackError):  # which the check has found already, or has made
                await self.unregister(identifier)

    def qualified(self, identifier: str) -> str:
        """A name that means this provider's object, whoever else serves one of that name."""
        return f"{self.provider_id}/{identifier}"

    async def becomes_healthy(self, within_s: float) -> bool:
        """Whether the provider is healthy before the time is over."""
        return await becomes(lambda: self.instance.status is ProviderStatus.healthy, within_s)


@dataclass(frozen=True, slots=True)
class _Shared:
    running: Running
    stopping: anyio.Event
    stopped: anyio.Event


def _nobody_watches(_: Check) -> None:
    """That a check runs."""


class Subject:
    """A provider under test.

    api, provider_type: which one. document: the run config, environment substituted; the provider is the first of that
    type in it.
    """

    def __init__(
        self, api: str, provider_type: str, document: Mapping[str, Any], *, discovery: Discovery | None = None
    ) -> None:
        self.api = api
        self.provider_type = provider_type
        self.document = document
        self.discovery = discovery or default_discovery()
        self.definitions: Mapping[str, ApiDefinition] = Hooks(self.discovery).apis()
        if api not in self.definitions or self.definitions[api].implemented_by_stack:
            known = ", ".join(name for name, d in self.definitions.items() if not d.implemented_by_stack)
            raise SubjectError(f"there is no API '{api}' for providers; allowed: {known}")
        self.definition = self.definitions[api]
        try:
            self.settings: Settings = settings_of(document)
        except ValidationError as error:
            faults = "; ".join(f"x-conformance.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise SubjectError(faults) from None
        self._portal: BlockingPortal | None = None
        self._group: TaskGroup | None = None
        self._shared: _Shared | None = None
        self.on_run: Callable[[Check], None] = _nobody_watches

    @cached_property
    def installed(self) -> Installed:
        """Raises CheckFailure when it is not installed."""
        distribution = self.entry.get("distribution") if self.has_entry else None
        try:
            return self.discovery.find(f"{PROVIDER_GROUP_PREFIX}{self.api}", self.provider_type, distribution)
        except DiscoveryError as error:
            raise CheckFailure(str(error)) from None

    @cached_property
    def spec(self) -> ProviderSpec:
        """Raises CheckFailure when it cannot be loaded."""
        try:
            return self.discovery.load_spec(self.installed)
        except DiscoveryError as error:
            raise CheckFailure(str(error)) from None

    @property
    def pair(self) -> RoutedPair:
        if self.definition.pair is None:
            raise NotApplicable(f"API '{self.api}' has no objects to list or register")
        return self.definition.pair

    def method(self, name: str) -> MethodDefinition:
        return self.definition.methods[name]

    def declares(self, capability: str) -> bool:
        """Whether the spec says that the provider has it, with the backend's version that the settings tell."""
        return self.spec.capabilities.holds(capability, self.settings.backend_version)

    # ---- its config ----------------------------------------------------------------------------------------------

    @property
    def has_entry(self) -> bool:
        return any(e.get("provider_type") == self.provider_type for e in self._entries())

    def _entries(self) -> list[dict[str, Any]]:
        providers = self.document.get("providers")
        found = providers.get(self.api) if isinstance(providers, dict) else None
        return [entry for entry in found or [] if isinstance(entry, dict)]

    @property
    def entry(self) -> dict[str, Any]:
        """Its entry in the run config. Raises SubjectError when there is none."""
        for entry in self._entries():
            if entry.get("provider_type") == self.provider_type:
                return entry
        raise SubjectError(f"providers.{self.api} of the run config has no provider of type '{self.provider_type}'")

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.entry.get("config") or {})

    @cached_property
    def config_class(self) -> type[BaseModel]:
        try:
            return self.spec.load_config_class()
        except Exception as error:
            raise CheckFailure(f"config_class {self.spec.config_class} cannot be loaded: {error}") from None

    @cached_property
    def secret_names(self) -> tuple[str, ...]:
        """Fields of the config, at its top, that are secrets."""
        schema = self.config_class.model_json_schema()
        properties = schema.get("properties", {})
        return tuple(name for name in dict.fromkeys(secret_fields(schema)) if name in properties)

    @property
    def backend_url_field(self) -> str | None:
        """The field of the config with the backend's URL, where there is one."""
        if self.settings.backend_url_field is not None:
            return None if self.settings.backend_url_field == "none" else self.settings.backend_url_field
        fields = self.config_class.model_json_schema().get("properties", {})
        found = [
            name
            for name, schema in fields.items()
            if ("'format': 'uri'" in repr(schema) or name == "url" or name.endswith("_url"))
            and "boolean" not in repr(schema)
            and self._url_of(name) is not None
        ]
        return found[0] if len(found) == 1 else None

    def _url_of(self, name: str) -> str | None:
        value = self.config.get(name)
        if value is None:
            field = self.config_class.model_fields.get(name)
            value = None if field is None or field.is_required() else field.get_default(call_default_factory=True)
        text = "" if value is None else str(value)
        return text if text.startswith(("http://", "https://")) else None

    @property
    def backend_url(self) -> str | None:
        return None if self.backend_url_field is None else self._url_of(self.backend_url_field)

    def require_backend(self) -> str:
        """The backend's URL. Raises NotApplicable where the suite cannot get between the two."""
        url = self.backend_url
        if url is None:
            raise NotApplicable("the config has no single http(s) URL of a backend whose connection could be broken")
        return url

    @property
    def short_timeouts(self) -> dict[str, Any]:
        """Changes to the config that make the provider impatient. Raises CheckFailure when it has no time limit."""
        if self.settings.short_timeouts is not None:
            return self.settings.short_timeouts
        fields = self.config_class.model_json_schema().get("properties", {})
        found = {
            name: 1
            for name, schema in fields.items()
            if "timeout" in name and ("'integer'" in repr(schema) or "'number'" in repr(schema))
        }
        if not found:
            raise CheckFailure(
                "the config has no number field with 'timeout' in its name",
                wanted="a time limit for a silent backend",
                mend="add a field such as `timeout_s`, or name the change in x-conformance.short_timeouts",
            )
        return found

    @property
    def redact(self) -> Callable[[str], str]:
        """Strikes the config's secrets out of a text."""
        try:
            validated: Any = self.config_class.model_validate(self.config)
        except Exception:
            return lambda text: text
        return redactor(validated)

    def secret_values(self) -> dict[str, str]:
        """Secrets of the config, by field: the configured ones; where there are none, markers that can be looked for.

        A key may be for another kind of config only, such as one for a server beside a folder: it is left out then.
        """
        given = self.config
        configured = {
            name: given[name] for name in self.secret_names if given.get(name) and isinstance(given[name], str)
        }
        if configured:
            return configured
        found: dict[str, str] = {}
        for name in self.secret_names:
            marked = {**found, name: f"{_MARKER}{name.replace('_', '-')}"}
            try:
                self.config_class.model_validate(_merged(given, marked))
            except ValidationError:
                continue
            found = marked
        return found

    @cached_property
    def data_model(self) -> type[BaseModel] | None:
        """The model of the client's provider data."""
        if self.spec.provider_data_validator is None:
            return None
        from llamastack.provider.dotted import load_dotted

        found: type[BaseModel] = load_dotted(self.spec.provider_data_validator)
        return found

    def client_data(self, key: str) -> dict[str, str] | None:
        """The provider data of a client with `key`; None where the provider reads no keys of clients."""
        if self.settings.client_data is not None:
            return {name: text.replace("{key}", key) for name, text in self.settings.client_data.items()}
        fields = {} if self.data_model is None else self.data_model.model_fields
        found = next((name for name, field in fields.items() if SecretStr.__name__ in repr(field.annotation)), None)
        return None if found is None else {found: key}

    # ---- starting stacks -----------------------------------------------------------------------------------------

    def run_config(self, provider_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The run config with the provider under `provider_id`, with changes, and without others of its API."""
        document = {name: copy.deepcopy(v) for name, v in self.document.items() if not is_extension(name)}
        document.pop("image_name", None)
        entry = self.entry
        document["providers"][self.api] = [
            {**entry, "provider_id": provider_id, "config": _merged(self.config, changes)}
        ]
        document["store"] = {"type": "memory"}
        pair = self.definition.pair
        if pair is not None:
            known = (None, "", entry.get("provider_id"))
            mine = [item for item in document.get(pair.table_api) or [] if item.get("provider_id") in known]
            document[pair.table_api] = [{**item, "provider_id": provider_id} for item in mine]
        return document

    @asynccontextmanager
    async def start(
        self,
        *,
        changes: Mapping[str, Any] | None = None,
        second: bool = False,
        tapped: bool = False,
        down: bool = False,
    ) -> AsyncIterator[Running]:
        """A stack of its own.

        changes: to the provider's config. second: the instance that is to run beside another, under an id of its own.
        tapped: with a tap before the backend; NotApplicable where that cannot be. down: the backend cannot be reached
        at first (`tap.listen()`). The shared stack is stopped before.
        Raises CheckFailure when it does not become healthy, unless `down`.
        """
        if not second:  # the shared one may hold what there is once: a folder, a port, a GPU's memory
            await self.stop_shared()
        provider_id = str(self.entry.get("provider_id") or "under-test") + (SECOND if second else "")
        async with AsyncExitStack() as opened:
            made: Tap | None = None
            change = _merged(changes or {}, self.settings.second if second else {})
            if tapped or down:
                made = await opened.enter_async_context(tap(self.require_backend(), listens=not down))
                change = _merged(change, _nested(self.backend_url_field or "", made.url))
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="llamastack-conformance-")))
            document = self.run_config(provider_id, change)
            try:
                stack = Stack.from_config(document, discovery=self.discovery, folder=folder)
            except ConfigError as error:
                raise CheckFailure(str(error), wanted="a run config that the stack accepts") from None
            await opened.enter_async_context(stack)
            running = Running(self, stack, provider_id, made)
            if not down and not await running.becomes_healthy(_STARTED_BY_S):
                raise CheckFailure(
                    f"the provider is {running.instance.status}: {running.instance.reason}",
                    wanted="a provider that starts and is healthy with this run config",
                )
            try:
                yield running
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(_CLEAN_UP_S):
                    await running.clean_up()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[Running]:
        """The one stack that all checks share which change nothing for the others."""
        if self._shared is None:
            if self._group is None:
                raise RuntimeError("a check runs while its subject is open")
            self._shared = await self._group.start(self._hold_shared)
        yield self._shared.running

    async def _hold_shared(self, *, task_status: TaskStatus[_Shared]) -> None:
        # In a task of its own: what a check opens, its own task has to close.
        stopped = anyio.Event()
        try:
            async with self.start() as running:
                shared = _Shared(running, anyio.Event(), stopped)
                task_status.started(shared)
                await shared.stopping.wait()
        finally:
            stopped.set()

    async def stop_shared(self) -> None:
        """Stop the shared stack, if it runs; the next check that wants it starts it again."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.stopping.set()
            await shared.stopped.wait()

    # ---- running checks ------------------------------------------------------------------------------------------

    @contextmanager
    def open(self) -> Iterator[Subject]:
        """Its own event loop in a thread of its own, for as long as the block lasts."""
        with start_blocking_portal("asyncio", name="llamastack-conformance") as portal:
            self._portal = portal
            tasks = portal.wrap_async_context_manager(self._tasks())
            tasks.__enter__()
            try:
                yield self
            finally:
                # In order, whatever the block failed with: that is no fault of the tasks.
                tasks.__exit__(None, None, None)
                self._portal = None

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as self._group:
            try:
                yield
            finally:
                await self.stop_shared()
        self._group = None

    def run(self, described: Check, body: Body, suite: Any) -> None:
        """Run a check to its end. Raises CheckFailure or NotApplicable."""
        if self._portal is None:
            raise RuntimeError("a check runs while its subject is open")
        self.on_run(described)
        self._portal.call(self._bounded, described, body, suite)

    async def _bounded(self, described: Check, body: Body, suite: Any) -> None:
        limit = self.settings.time_limit_s
        try:
            with anyio.move_on_after(limit) as scope:
                await body(suite, self)
        except (CheckFailure, NotApplicable):
            raise
        except Exception as error:
            raise _as_failure(error) from error
        if scope.cancelled_caught:
            raise CheckFailure(f"nothing for {limit:g} s", mend="find what waits for ever; x-conformance.time_limit_s")


def _as_failure(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, CheckFailure | NotApplicable):
        return error
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, LlamaStackError):
        told = f"{type(error).__name__} ({error.status}): {error.message}"
    return CheckFailure(told)


def _merged(config: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the changes in it; mappings are merged, None takes a key away."""
    merged = dict(config)
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            merged[name] = _merged(merged[name], value)
        else:
            merged[name] = value
    return merged


def _nested(path: str, value: Any) -> dict[str, Any]:
    """`("server.url", v)` -> `{"server": {"url": v}}`."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def load_run_config(file: Path) -> dict[str, Any]:
    """A run config, with its environment substituted. Raises SubjectError."""
    try:
        document = read_yaml(file.read_text(encoding="utf-8"), None)
    except (OSError, UnicodeDecodeError) as error:
        raise SubjectError(f"{file}: cannot be read: {error}") from None
    except YamlFaultsError as error:
        raise SubjectError("\n".join(f"{file}:{f.line}: {f.message}" for f in error.faults)) from None
    if not isinstance(document.value, dict):
        raise SubjectError(f"{file}: must be a mapping with the key 'providers'")
    return document.value
