"""The run config: its model, and reading it with errors that say where, what and what is allowed."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, create_model

from llamastack.api.definition import ApiDefinition, ResourceKind
from llamastack.api.schema import Schema
from llamastack.provider.config_sections import ConfigSection
from llamastack.provider.redaction import Redactor, shown_value, without_userinfo
from llamastack.provider.validation import explain_validation_error
from llamastack.provider.validation_paths import path_of
from llamastack.stack.discovery import RUN_CONFIG_GROUP, Discovery, DiscoveryError
from llamastack.stack.yaml_source import ConfigError, ConfigIssue, Path, YamlDocument, read_yaml

ProviderId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=128)]
HOME_VARIABLE = "LLAMASTACK_HOME"
_EXTENSION = "x-"
_KNOWN_SECTIONS = {"server": "llamastack-server"}
"""Sections of packages that need not be installed: the same run config can be used without them."""
_Section = TypeVar("_Section", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ProviderConfig(_Strict):
    """One instance of a provider."""

    provider_id: ProviderId = Field(description="Name of this instance; unique within its API")
    provider_type: str = Field(min_length=1, description="An installed type; see `llamastack providers list`")
    distribution: str | None = Field(None, description="Chooses among several packages that bring the same type")
    config: dict[str, Any] = Field(default_factory=dict, description="See `llamastack providers show TYPE`")


class StoreConfig(_Strict):
    type: str = Field("sqlite", description="Where registered objects are kept; an installed store")
    config: dict[str, Any] = Field(default_factory=dict, description="Settings of that store")


class RunConfig(_Strict):
    """What a stack is assembled from. `providers` is the only key that must be there; `x-...` may be anything."""

    model_config = ConfigDict(json_schema_extra={"patternProperties": {f"^{_EXTENSION}": {}}})

    version: str | int | float | None = Field(None, description="Free; for your own use")
    image_name: ProviderId | None = Field(None, description="Name of this stack; its files are kept under it")
    apis: list[str] | None = Field(None, description="Serve only these APIs; all that have providers by default")
    providers: dict[str, list[ProviderConfig]] = Field(description="Provider instances by API")
    store: StoreConfig | None = Field(
        None, description="Registered objects; an sqlite file beside the config by default"
    )
    on_provider_error: Literal["retry", "fail"] = Field(
        "retry",
        description="A provider that cannot start, or that refuses an object of this config: keep trying beside the "
        "others, or do not start at all",
    )
    start_timeout_s: float = Field(60.0, gt=0, description="Seconds that a provider gets to start, without progress")
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


def run_config_model(apis: Mapping[str, ApiDefinition], sections: Sequence[ConfigSection] = ()) -> type[RunConfig]:
    """`RunConfig` with a list for each kind of object, such as `models`, and the sections that plugins read."""
    kinds = _kinds(apis)
    for section in sections:
        if section.name in kinds or section.name in RunConfig.model_fields:
            raise DiscoveryError(f"a plugin claims the config section '{section.name}', which is there already")
    return _model_for(tuple(kinds.values()), tuple(sections))


@dataclass(frozen=True)
class LoadedConfig:
    """A run config and where it came from.

    source: file name, `distribution NAME`, or `config`. folder: where the stack keeps its files; None for a config
    without a name to keep them under.
    """

    run: RunConfig
    source: str = "config"
    document: YamlDocument = field(default_factory=YamlDocument)
    folder: FilePath | None = None
    redact: Redactor = field(default_factory=lambda: Redactor(None))
    """Strikes out what is secret by its key, wherever it stands; a provider's secret fields only the provider knows."""

    def fault(self, path: Path, message: str) -> ConfigIssue:
        return ConfigIssue(self.document.line_of(path), path, message)

    def error(self, path: Path, message: str) -> ConfigError:
        return ConfigError(self.source, [self.fault(path, message)])

    def section(self, name: str, model: type[_Section]) -> _Section:
        """What a section of the config says; its defaults where the config has none. Raises ConfigError."""
        read = getattr(self.run, name, None)
        if isinstance(read, model):
            return read
        given = {} if read is None else self.document.value[name]  # its plugin was not there when this was read
        try:
            return model.model_validate(given)
        except ValidationError as error:
            raise ConfigError(self.source, self.faults_in(error, (name,), given, model)) from None

    def objects(self, resource_api: str) -> list[Any]:
        """What the config registers at start for one registry API."""
        return list(getattr(self.run, resource_api, []))

    def faults_in(self, error: ValidationError, path: Path, value: object, model: type[BaseModel]) -> list[ConfigIssue]:
        """The faults that pydantic found in `value`, which stands at `path` and should fit `model`."""
        return _validation_faults(error, model, path, value, self.document)


def _validation_faults(
    error: ValidationError, model: type[BaseModel], base: Path, value: object, document: YamlDocument
) -> list[ConfigIssue]:
    """Faults with key paths, lines and the bad value, secrets left out."""
    fields = Schema.of(model).nested_fields()
    secret = [path.rpartition(".")[2] for path, field in fields if field.is_secret]
    found: dict[tuple[Path, str], ConfigIssue] = {}
    redact = Redactor(value)  # a validator of a provider's own may repeat what it was given
    for fault in explain_validation_error(error, model):
        path = (*base, *fault["loc"])
        message = redact(fault["msg"])
        if fault["type"] not in ("missing", "extra_forbidden"):
            at = functools.reduce(_inside, fault["loc"], value)
            message += f" (is {_shown(path, at, document, secret)})"
        found.setdefault((path, message), ConfigIssue(document.line_of(path), path, message))
    return list(found.values())


def _inside(value: Any, part: str | int) -> object:
    try:
        return value[part]
    except (LookupError, TypeError):
        return None  # a validator of somebody's own made up the path


def _shown(path: Path, value: object, document: YamlDocument, secret: Collection[str]) -> str:
    substituted = document.from_environment.get(path)
    shown = shown_value(path, value, secret)
    return shown if substituted is None or shown == "***" else without_userinfo(substituted)


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
        loaded = _validated(YamlDocument(value=dict(source)), "config", None, model)
        return replace(loaded, folder=home_folder() / name) if isinstance(name, str) else loaded
    file, shown, folder = _locate(source, discovery)
    try:
        return _validated(read_yaml(file.read_text(encoding="utf-8"), environment, shown), shown, folder, model)
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


def _validated(document: YamlDocument, source: str, folder: FilePath | None, model: type[RunConfig]) -> LoadedConfig:
    value = document.value
    if not isinstance(value, dict):
        raise ConfigError(source, [ConfigIssue(None, (), "must be a mapping with the key 'providers'")])
    redact = Redactor(value)
    try:
        run = model.model_validate({k: v for k, v in value.items() if not is_extension(k)})
    except ValidationError as error:
        raise ConfigError(source, _validation_faults(error, model, (), value, document)) from None
    return LoadedConfig(run=run, source=source, document=document, folder=folder, redact=redact)


def check_references(config: LoadedConfig, apis: Mapping[str, ApiDefinition]) -> list[ConfigIssue]:
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
            what = f"there is no such API for providers; allowed: {', '.join(allowed)}"
            found.append(config.fault(("providers", api), what))
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
    if api.pair is None and len(providers) > 1:
        what = f"API '{api.name}' takes one provider: its requests name no object that could choose between several"
        yield config.fault((*path, 1), what)
    seen: dict[str, str] = {}
    for place, provider in enumerate(providers):
        first = seen.setdefault(provider.provider_id, path_of((*path, place)))
        if first != path_of((*path, place)):
            what = f"'{provider.provider_id}' is the id of {first} already; ids are unique within an API"
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
