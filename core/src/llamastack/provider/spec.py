"""ProviderSpec: what a provider package says of itself, cheap to import.

It holds dotted strings, so reading it imports neither the provider's code nor its SDK.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel

from llamastack.api.definition import API_VERSION
from llamastack.provider.capabilities import Capabilities
from llamastack.provider.import_path import DOTTED_PATTERN, load_dotted

_DOTTED = re.compile(DOTTED_PATTERN)
_COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}
_VERSION_TERM = re.compile(rf"^({'|'.join(_COMPARISONS)})\s*(\d+)(?:\.(\d+))?$")
Version = tuple[int, int]
EVERY_API = "*"
"""In `optional_api_dependencies`: every API of the stack, for a provider whose users name what it calls."""


@dataclass(frozen=True, kw_only=True)
class ProviderSpec:
    """One provider type of one API.

    Dotted paths are of the form `package.module:attribute`; what they name is imported when an instance is started.

    kind: where the work is done; each class has its own.
    api: name of the API it implements (`Api.inference`, or the string of a plugin's API).
    provider_type: the name users write in their run config; the same as the entry point's.
    config_class: dotted path of the pydantic model of its config.
    factory: dotted path of the function that makes an instance out of an instance of `config_class` and a `Deps`, once
        for each entry of a run config: by convention `async def get_provider_impl(config, deps)` for an inline
        provider, `async def get_adapter_impl(config, deps)` for a remote one.
    description: one line for people, without a full stop.
    api_dependencies: APIs of the stack that it calls; a stack without them is refused.
    optional_api_dependencies: APIs that it calls when the stack has them. `("*",)` stands for every other API: then it
        starts without waiting for their providers, and stops before those that do not need it.
    provider_data_validator: dotted path of the pydantic model of its part of `X-LlamaStack-ProviderData`.
    api_version: range of `llamastack.api.definition.API_VERSION` that it works with, e.g. ">=1.0,<2".
    capabilities: what it can and cannot do; see `Capabilities`.
    single_process: whether it is refused in a server of several processes, each of which would have an instance that
        keeps things to itself: True, or the names of the config fields that make it so where they are set.
    """

    kind: ClassVar[str] = "inline"

    api: str
    provider_type: str
    config_class: str
    factory: str
    description: str
    api_dependencies: tuple[str, ...] = ()
    optional_api_dependencies: tuple[str, ...] = ()
    provider_data_validator: str | None = None
    api_version: str = ">=1.0,<2"
    capabilities: Capabilities = field(default_factory=Capabilities)
    single_process: bool | tuple[str, ...] = False

    def __post_init__(self) -> None:
        for name in ("config_class", "factory", "provider_data_validator"):
            path = getattr(self, name)
            if path is not None and not _DOTTED.match(path):
                raise ValueError(f"{name}: {path!r} is not of the form 'package.module:attribute'")
        if not self.description.strip():
            raise ValueError("description: must not be empty")
        _parse_range(self.api_version)
        if isinstance(self.single_process, str):
            raise TypeError(f"single_process: {self.single_process!r} must be True, False or a tuple of field names")
        object.__setattr__(self, "api", str(self.api))
        for name in ("api_dependencies", "optional_api_dependencies"):
            object.__setattr__(self, name, tuple(str(api) for api in getattr(self, name)))

    def accepts_api_version(self, version: Version = API_VERSION) -> bool:
        """Whether this provider was made for `version` of the hooks."""
        return all(holds(version, bound) for holds, bound in _parse_range(self.api_version))

    def needs_newer(self, version: Version = API_VERSION) -> bool:
        """Whether it was made for a later version of the hooks only."""
        missed = [(holds, bound) for holds, bound in _parse_range(self.api_version) if not holds(version, bound)]
        return any(bound > version or holds((bound[0] + 1, 0), bound) for holds, bound in missed)

    def load_config_class(self) -> type[BaseModel]:
        """The class that `config_class` names.

        Raises ImportError or AttributeError when it is not there, TypeError when it is no pydantic model.
        """
        found = load_dotted(self.config_class)
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            raise TypeError(f"config_class {self.config_class} is no pydantic model")
        return found

    def load_factory(self) -> Callable[..., Awaitable[object]]:
        """What `factory` names. Raises ImportError or AttributeError when it is not there."""
        factory: Callable[..., Awaitable[object]] = load_dotted(self.factory)
        return factory


@dataclass(frozen=True, kw_only=True)
class InlineProviderSpec(ProviderSpec):
    """A provider that does the work in this process."""


@dataclass(frozen=True, kw_only=True)
class RemoteProviderSpec(ProviderSpec):
    """A provider that adapts a service elsewhere."""

    kind: ClassVar[str] = "remote"


def _parse_range(text: str) -> list[tuple[Callable[[Version, Version], bool], Version]]:
    terms: list[tuple[Callable[[Version, Version], bool], Version]] = []
    for part in text.split(","):
        match = _VERSION_TERM.match(part.strip())
        if match is None:
            raise ValueError(f"api_version: {part.strip()!r} is not like '>=1.0' or '<2'")
        terms.append((_COMPARISONS[match[1]], (int(match[2]), int(match[3] or 0))))
    return terms
