"""The provider under test, read from its package and its run config. Nothing is started here."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, Secret, ValidationError

from llamastack.api.definition import ApiDefinition, MethodDefinition, ResourceKind
from llamastack.api.schema import Schema
from llamastack.provider.import_path import load_dotted
from llamastack.provider.redaction import Redactor
from llamastack.provider.spec import ProviderSpec
from llamastack.provider.validation import explain_validation_error
from llamastack.provider.validation_paths import path_of
from llamastack.stack.config import is_extension
from llamastack.stack.discovery import PROVIDER_GROUP_PREFIX, Discovery, DiscoveryError, Installed, default_discovery
from llamastack.stack.plugins import Plugins
from llamastack.stack.yaml_source import ConfigError, read_yaml
from llamastack_conformance.checks import CheckFailure, NotApplicable, NotUsable
from llamastack_conformance.settings import Settings, settings_of

_T = TypeVar("_T")
_MARKER = "7f3a9c-conformance-secret-of-"


class SubjectError(Exception):
    """The suite cannot begin: the run config, or something it names, is missing or wrong."""


class Origin(NamedTuple):
    """What is under test, as a report names it.

    api: of the provider; `store` for a store. type: of the provider, or the name of the store. package, version:
    of its package; "?" when it is not installed. capabilities: those that the spec declares.
    """

    api: str
    type: str
    package: str
    version: str
    capabilities: dict[str, str]


def read_settings(document: Mapping[str, Any]) -> Settings:
    """The settings of the suite in a run config. Raises SubjectError if they are wrong."""
    try:
        return settings_of(document)
    except ValidationError as error:
        raise not_valid(error, Settings, ["x-conformance"]) from None


def not_valid(error: ValidationError, model: type[BaseModel], at: list[str]) -> SubjectError:
    """What is wrong with a part of the run config; without its values, which may be secrets."""
    faults = explain_validation_error(error, model)
    return SubjectError("; ".join(f"{path_of([*at, *fault['loc']])}: {fault['msg']}" for fault in faults))


class ConfiguredProvider:
    """An installed provider and its place in a run config.

    api, provider_type: the provider. document: the run config, with its environment substituted; the first provider of
    that type in it is used. Raises SubjectError for an unknown API and for wrong settings.
    """

    def __init__(
        self, api: str, provider_type: str, document: Mapping[str, Any], *, discovery: Discovery | None = None
    ) -> None:
        self.api = api
        self.provider_type = provider_type
        self.document = document
        self.discovery = discovery or default_discovery()
        hooks = Plugins(self.discovery)
        self.definitions: Mapping[str, ApiDefinition] = hooks.apis()
        if api not in self.definitions or self.definitions[api].implemented_by_stack:
            known = ", ".join(name for name, d in self.definitions.items() if not d.implemented_by_stack)
            left_out = "".join(f"; a plugin is left out: {broken.cause}" for broken in hooks.broken)
            raise SubjectError(f"no installed plugin adds API '{api}' for providers; allowed: {known}{left_out}")
        self.definition = self.definitions[api]
        self.settings = read_settings(document)

    @cached_property
    def installed(self) -> Installed:
        """The installed provider. Raises NotUsable if it is not installed."""
        package = self.entry.get("package") if self.has_entry else None
        try:
            return self.discovery.find(f"{PROVIDER_GROUP_PREFIX}{self.api}", self.provider_type, package)
        except DiscoveryError as error:
            raise NotUsable(
                str(error), wanted="an installed provider", mend="install its package, or correct the type"
            ) from None

    @cached_property
    def spec(self) -> ProviderSpec:
        """The provider's spec. Raises NotUsable if it cannot be loaded."""
        try:
            return self.discovery.load_spec(self.installed)
        except DiscoveryError as error:
            raise NotUsable(
                str(error),
                wanted="the entry point names a ProviderSpec of this API and type, for this version of the core",
                mend="correct the entry point, the module that it names, or the spec",
            ) from None

    @property
    def origin(self) -> Origin:
        """Where the provider comes from, for reports."""
        try:
            found = self.installed.package, self.installed.version, dict(self.spec.capabilities)
        except CheckFailure:
            found = "?", "?", {}
        return Origin(self.api, self.provider_type, *found)

    @property
    def pair(self) -> ResourceKind:
        if self.definition.pair is None:
            raise NotApplicable(f"API '{self.api}' has no resources to list or register")
        return self.definition.pair

    def method(self, name: str) -> MethodDefinition:
        return self.definition.methods[name]

    def declares(self, capability: str) -> bool:
        """Whether the spec declares the capability for the backend's version, and this instance does not lack it."""
        return capability not in self.settings.lacks and self.spec.capabilities.holds(
            capability, self.settings.backend_version
        )

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
        """The provider's entry in the run config. Raises SubjectError if there is none."""
        for entry in self._entries():
            if entry.get("provider_type") == self.provider_type:
                return entry
        raise SubjectError(f"providers.{self.api} of the run config has no provider of type '{self.provider_type}'")

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.entry.get("config") or {})

    @cached_property
    def config_class(self) -> type[BaseModel]:
        """The class of the config. Raises NotUsable if it cannot be loaded."""
        return self._loaded("config_class", self.spec.load_config_class)

    @cached_property
    def factory(self) -> Callable[..., Awaitable[object]]:
        """The factory. Raises NotUsable if it cannot be loaded."""
        return self._loaded("factory", self.spec.load_factory)

    def require_code(self) -> None:
        """Raises NotUsable if something that the spec names cannot be loaded."""
        _ = self.config_class, self.data_model, self.factory

    def _loaded(self, key: str, load: Callable[[], _T]) -> _T:
        """What the spec names. Its cause alone is the reason: several things may be in one module."""
        try:
            return load()
        except Exception as error:
            raise NotUsable(
                f"{type(error).__name__}: {error}",
                wanted=f"{key} {getattr(self.spec, key)} can be loaded",
                mend=f"correct `{key}` in the spec, or the module that it names",
            ) from None

    @cached_property
    def config_fields(self) -> dict[str, Schema]:
        """The schemas of the fields at the top of the config."""
        return Schema.of(self.config_class).fields

    @cached_property
    def secret_names(self) -> tuple[str, ...]:
        """The secret fields at the top of the config."""
        return tuple(name for name, schema in self.config_fields.items() if schema.is_secret)

    @property
    def backend_url_field(self) -> str | None:
        """The field of the config that holds the backend's URL, or None."""
        if self.settings.backend_url_field is not None:
            return None if self.settings.backend_url_field == "none" else self.settings.backend_url_field
        found = [
            name
            for name, schema in self.config_fields.items()
            if ("uri" in schema.values_of("format") or name == "url" or name.endswith("_url"))
            and "boolean" not in schema.values_of("type")
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
        """The backend's URL. Raises NotApplicable if the suite cannot put a tap before the backend."""
        url = self.backend_url
        if url is None:
            raise NotApplicable("the config has no single http(s) URL of a backend whose connection could be broken")
        return url

    def has_other_backend(self, change: Mapping[str, Any]) -> bool:
        """Whether a change of the config names another URL of the backend."""
        config = self.config
        path = (self.backend_url_field or "").split(".")
        return _at(merged(config, change), path) != _at(config, path)

    def move_backend(self, url: str) -> None:
        """Let the provider's config name this URL as its backend's. Raises NotApplicable as `require_backend`."""
        self.require_backend()
        changed = {**self.entry, "config": merged(self.config, nested(self.backend_url_field or "", url))}
        own = self.entry
        entries = [changed if entry is own else entry for entry in self.document["providers"][self.api]]
        self.document = {**self.document, "providers": {**self.document["providers"], self.api: entries}}

    @property
    def short_timeouts(self) -> dict[str, Any]:
        """Changes to the config that shorten the provider's time limits. Raises CheckFailure if it has none."""
        if self.settings.short_timeouts is not None:
            return self.settings.short_timeouts
        found = {
            name: 1
            for name, schema in self.config_fields.items()
            if "timeout" in name and schema.values_of("type") & {"integer", "number"}
        }
        if not found:
            raise CheckFailure(
                "the config has no number field with 'timeout' in its name",
                wanted="a time limit for a silent backend",
                mend="add a field such as `timeout_s`, or name the change in x-conformance.short_timeouts",
            )
        return found

    def redact(self, text: str) -> str:
        """`text` without the secrets of the config; if those are unknown, without all texts of the config."""
        try:
            config: Any = self.config_class.model_validate(self.config)
        except (CheckFailure, ValidationError):
            config = Secret(self.config)
        return Redactor(config)(text)

    def secret_values(self) -> dict[str, str]:
        """The secrets of the config, by field: the configured ones, or markers to search for if there are none.

        A key that belongs to another kind of config, such as a server's key in a config with a folder, is left out.
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
                self.config_class.model_validate(merged(given, marked))
            except ValidationError:
                continue
            found = marked
        return found

    @cached_property
    def data_model(self) -> type[BaseModel] | None:
        """The model of the client's provider data. Raises NotUsable if it cannot be loaded."""
        path = self.spec.provider_data_validator
        if path is None:
            return None
        found: type[BaseModel] = self._loaded("provider_data_validator", partial(load_dotted, path))
        return found

    def client_data(self, key: str) -> dict[str, str] | None:
        """The provider data of a client with `key`; None if the provider reads no keys of clients."""
        if self.settings.client_data is not None:
            return {name: text.replace("{key}", key) for name, text in self.settings.client_data.items()}
        fields = {} if self.data_model is None else Schema.of(self.data_model).fields
        found = next((name for name, field in fields.items() if field.is_secret), None)
        return None if found is None else {found: key}

    def run_config(self, provider_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The run config with the provider under `provider_id`, with changes, without other providers of its API."""
        document = {name: copy.deepcopy(v) for name, v in self.document.items() if not is_extension(name)}
        document.pop("image_name", None)
        entry = self.entry
        document["providers"][self.api] = [
            {**entry, "provider_id": provider_id, "config": merged(self.config, changes)}
        ]
        document["store"] = {"type": "memory"}
        pair = self.definition.pair
        if pair is not None:
            known = (None, "", entry.get("provider_id"))
            mine = [item for item in document.get(pair.resource_api) or [] if item.get("provider_id") in known]
            document[pair.resource_api] = [{**item, "provider_id": provider_id} for item in mine]
        return document


def merged(config: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the changes applied. Mappings are merged; None removes a key."""
    result = dict(config)
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


def nested(path: str, value: Any) -> dict[str, Any]:
    """`("server.url", v)` -> `{"server": {"url": v}}`."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def _at(config: Any, path: list[str]) -> object:
    """The value at a path of names, or None."""
    for name in path:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def load_run_config(file: Path) -> dict[str, Any]:
    """A run config, with its environment substituted. Raises SubjectError."""
    try:
        document = read_yaml(file.read_text(encoding="utf-8"), source=str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise SubjectError(f"{file}: cannot be read: {error}") from None
    except ConfigError as error:
        raise SubjectError(str(error)) from None
    if not isinstance(document.value, dict):
        raise SubjectError(f"{file}: must be a mapping with the key 'providers'")
    return document.value
