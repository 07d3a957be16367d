"""The run config: its model, and reading it with errors that say where, what and what is allowed."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

from llamastack.api.definition import ApiDefinition, ResourceKind
from llamastack.api.id_fields import unroutable_methods
from llamastack.provider.config_sections import ConfigSection
from llamastack.provider.redaction import Redactor
from llamastack.provider.validation_paths import path_of
from llamastack.stack.discovery import RUN_CONFIG_GROUP, Discovery, DiscoveryError
from llamastack.stack.yaml_source import ConfigError, ConfigIssue, YamlDocument, read_yaml

ProviderId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=128)]
HOME_VARIABLE = "LLAMASTACK_HOME"
_EXTENSION = "x-"
_KNOWN_SECTIONS = {
    "server": "llamastack-server",
    "metrics": "llamastack-metrics",
    "tracing": "llamastack-telemetry",
    "prices": "llamastack-telemetry",
}
"""Sections of packages that need not be installed: the same run config can be used without them."""
_Section = TypeVar("_Section", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ProviderConfig(_Strict):
    """One instance of a provider."""

    provider_id: ProviderId = Field(description="Name of this instance; unique within its API")
    provider_type: str = Field(min_length=1, description="An installed type; see `llamastack providers list`")
    package: str | None = Field(None, description="The package, if several packages bring the same type")
    config: dict[str, Any] = Field(default_factory=dict, description="See `llamastack providers show TYPE`")


class StoreConfig(_Strict):
    type: str = Field("sqlite", description="An installed store, such as `sqlite` or `memory`")
    config: dict[str, Any] = Field(default_factory=dict, description="Settings of the store")


class RunConfig(_Strict):
    """What a stack is assembled from. Only the key `providers` is required; keys `x-...` may have any value."""

    model_config = ConfigDict(json_schema_extra={"patternProperties": {f"^{_EXTENSION}": {}}})

    version: str | int | float | None = Field(None, description="Any value, for your own use")
    image_name: ProviderId | None = Field(None, description="Name of this stack; its files are kept under it")
    apis: list[str] | None = Field(None, description="APIs to serve; by default all that have providers")
    providers: dict[str, list[ProviderConfig]] = Field(description="Provider instances by API")
    store: StoreConfig | None = Field(
        None, description="Where registrations are kept; by default SQLite in the stack's own folder"
    )
    on_provider_error: Literal["retry", "fail"] = Field(
        "retry",
        description="If a provider cannot start, or refuses a resource of this config: `retry` it while the others "
        "serve, or `fail` the start of the stack",
    )
    start_timeout_s: float = Field(
        60.0, gt=0, description="Seconds without progress after which the start of a provider fails"
    )
    refresh_interval_s: float = Field(10.0, gt=0, description="Seconds between asking a provider what it serves")


@functools.lru_cache(maxsize=8)
def _model_for(kinds: tuple[ResourceKind, ...], sections: tuple[ConfigSection, ...]) -> type[RunConfig]:
    fields: dict[str, Any] = {
        name: (dict[str, Any] | None, Field(None, description=f"Read by {package}, which is not installed"))
        for name, package in _KNOWN_SECTIONS.items()
    }
    for section in sections:
        fields[section.name] = (section.model, Field(default_factory=section.model, description=section.description))
    for kind in kinds:
        field_type = list[kind.object_type]  # type: ignore[name-defined]
        description = f"{kind.label.capitalize()}s to register at start"
        fields[kind.resource_api] = (field_type, Field(default_factory=list, description=description))
    return create_model("RunConfig", __base__=RunConfig, **fields)


def _kinds(apis: Mapping[str, ApiDefinition]) -> dict[str, ResourceKind]:
    """The kinds of objects, by the names of their resource APIs."""
    return {d.pair.resource_api: d.pair for d in apis.values() if d.pair}


def is_extension(key: object) -> bool:
    """Whether a top-level key is not the stack's: those that begin with `x-` are for other tools, and for anchors."""
    return isinstance(key, str) and key.startswith(_EXTENSION)


def reserved_keys(sections: Iterable[str]) -> set[str]:
    """The top-level keys that no kind of objects may be named after. sections: those that plugins read."""
    return {*dir(RunConfig), *RunConfig.model_fields, *_KNOWN_SECTIONS, *sections}


def run_config_model(apis: Mapping[str, ApiDefinition], sections: Sequence[ConfigSection] = ()) -> type[RunConfig]:
    """`RunConfig` with a list for each kind of object, such as `models`, and the sections that plugins read."""
    kinds = _kinds(apis)
    for section in sections:
        if section.name in kinds or section.name in RunConfig.model_fields:
            raise DiscoveryError(f"a plugin claims the config section '{section.name}', which is there already")
    return _model_for(tuple(kinds.values()), tuple(sections))


@dataclass(frozen=True, kw_only=True)
class LoadedConfig(YamlDocument):
    """A run config and where it came from.

    folder: where the stack keeps its files; None for a config without a name to keep them under.
    redact: strikes out what is secret by its key, wherever it stands; a provider's secret fields only the provider
    knows.
    """

    run: RunConfig
    folder: FilePath | None
    redact: Redactor

    def section(self, name: str, model: type[_Section]) -> _Section:
        """What a section of the config says; its defaults where the config has none. Raises ConfigError."""
        read = getattr(self.run, name, None)
        if isinstance(read, model):
            return read
        # The plugin of this section was not installed when the config was read.
        return self.validated(model, (name,), {} if read is None else self.value[name])

    def objects(self, resource_api: str) -> list[Any]:
        """What the config registers at start for one resource API."""
        return list(getattr(self.run, resource_api, []))


def home_folder() -> FilePath:
    """Where stacks without a config file of their own keep their files: $LLAMASTACK_HOME, else ~/.llamastack."""
    return FilePath(os.environ.get(HOME_VARIABLE) or FilePath.home() / ".llamastack")


def load_config(
    source: str | FilePath | Mapping[str, object],
    apis: Mapping[str, ApiDefinition],
    discovery: Discovery,
    environment: Mapping[str, str] | None = None,
    sections: Sequence[ConfigSection] = (),
) -> LoadedConfig:
    """Read and validate a run config.

    source: a YAML file, the name of an installed run config, or the config itself as a mapping.
    Raises ConfigError.
    """
    model = run_config_model(apis, sections)
    if isinstance(source, Mapping):
        name = source.get("image_name")
        return _loaded(YamlDocument(dict(source)), model, home_folder() / name if isinstance(name, str) else None)
    file, shown, folder = _locate(source, discovery)
    try:
        return _loaded(read_yaml(file.read_text(encoding="utf-8"), environment, shown), model, folder)
    except FileNotFoundError:
        what = "there is no such file"
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text: {error.reason} at byte {error.start}"
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    raise ConfigError(shown, [ConfigIssue(None, (), what)])


def _locate(source: str | FilePath, discovery: Discovery) -> tuple[FilePath, str, FilePath]:
    text = str(source)
    path = FilePath(source)
    if isinstance(source, FilePath) or path.suffix in (".yaml", ".yml") or os.sep in text or path.is_file():
        key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
        return path, text, path.resolve().parent / ".llamastack" / f"{path.stem}-{key}"
    try:
        installed = discovery.find(RUN_CONFIG_GROUP, text)
        file = FilePath(str(installed.load()))
    except DiscoveryError as error:
        raise ConfigError(
            text, [ConfigIssue(None, (), f"is neither a file nor an installed run config: {error}")]
        ) from None
    return file, f"{text} ({file.name} of {installed.origin})", home_folder() / text


def _loaded(document: YamlDocument, model: type[RunConfig], folder: FilePath | None) -> LoadedConfig:
    if not isinstance(document.value, dict):
        raise ConfigError(document.source, [ConfigIssue(None, (), "must be a mapping with the key 'providers'")])
    own = {key: value for key, value in document.value.items() if not is_extension(key)}
    run = document.validated(model, (), own)
    return LoadedConfig(**vars(document), run=run, folder=folder, redact=Redactor(document.value))


def check_references(
    config: LoadedConfig, apis: Mapping[str, ApiDefinition], discovery: Discovery
) -> list[ConfigIssue]:
    """What no single field can know: names of APIs, ids that are there twice, objects of no provider."""
    allowed = [name for name, definition in apis.items() if not definition.implemented_by_stack]
    run = config.run
    found: list[ConfigIssue] = []
    if not run.providers:
        found.append(config.fault(("providers",), f"names no provider at all; APIs: {', '.join(allowed)}"))
    for api in run.providers:
        if api in allowed:
            found += _provider_faults(config, apis[api])
        else:
            types = [f"'{each.name}' of {each.origin}" for each in discovery.providers(api)]
            none = f"no installed plugin adds API '{api}' (its provider types: {', '.join(types)})"
            what = none if types and api not in apis else "there is no such API for providers"
            found.append(config.fault(("providers", api), f"{what}; allowed: {', '.join(allowed)}"))
    for place, api in enumerate(run.apis or ()):
        if api not in allowed:
            found.append(config.fault(("apis", place), f"there is no API '{api}'; allowed: {', '.join(allowed)}"))
        elif not run.providers.get(api):
            found.append(config.fault(("apis", place), f"API '{api}' has no provider; add one to providers.{api}"))
    for kind in _kinds(apis).values():
        found += _object_faults(config, kind)
    return found


def _provider_faults(config: LoadedConfig, api: ApiDefinition) -> Iterator[ConfigIssue]:
    path, providers = ("providers", api.name), config.run.providers[api.name]
    if not providers:
        yield config.fault(path, f"API '{api.name}' has no provider; add one or remove the key")
    lost = unroutable_methods(api) if api.pair is None and len(providers) > 1 else []
    if lost:
        why = f"nothing in the calls of {', '.join(lost)} could say which of several is meant"
        yield config.fault((*path, 1), f"API '{api.name}' takes one provider: {why}")
    ids = [provider.provider_id for provider in providers]
    for place, provider_id in enumerate(ids):
        if ids.index(provider_id) < place:
            first = path_of((*path, ids.index(provider_id)))
            what = f"'{provider_id}' is the id of {first} already; ids are unique within an API"
            yield config.fault((*path, place, "provider_id"), what)


def _object_faults(config: LoadedConfig, pair: ResourceKind) -> Iterator[ConfigIssue]:
    api, run = pair.routed_api, config.run
    ids = [provider.provider_id for provider in run.providers.get(api, ())]
    identifiers: set[str] = set()
    for place, item in enumerate(config.objects(pair.resource_api)):
        path = (pair.resource_api, place)
        if run.apis is not None and api not in run.apis:
            yield config.fault(path, f"API '{api}' is left out of 'apis'")
        elif not ids:
            yield config.fault(path, f"API '{api}' has no provider to register it with")
        elif item.provider_id not in ids and (item.provider_id or len(ids) > 1):
            what = f"'{item.provider_id}' is no provider of API '{api}'; allowed: {', '.join(ids)}"
            yield config.fault((*path, "provider_id"), what)
        if item.identifier in identifiers:
            yield config.fault((*path, "identifier"), f"'{item.identifier}' is there twice")
        identifiers.add(item.identifier)
