"""Finds installed providers and plugins: reads entry points from package metadata, and imports nothing to list them."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import importlib_metadata

from llamastack.provider.import_path import load_dotted

if TYPE_CHECKING:
    from llamastack.provider.spec import ProviderSpec

PROVIDER_GROUP_PREFIX = "llamastack.providers."
RUN_CONFIG_GROUP = "llamastack.distributions"
STORE_GROUP = "llamastack.stores"
PLUGIN_GROUP = "llamastack.plugins"
REQUIRED_PLUGIN_GROUP = "llamastack.required_plugins"
DISABLE_VARIABLE = "LLAMASTACK_DISABLE_PLUGINS"
_REQUIRED_BY_EXTRA = re.compile(r"""([\w.-]+)[^;]*;\s*extra\s*==\s*['"]([\w.-]+)['"]\s*$""")


class DiscoveryError(Exception):
    """A thing named by the user is not installed, is ambiguous, disabled or broken. The message says all of it."""


@dataclass(frozen=True)
class Installed:
    """One entry point of one package.

    group, name, value: as in its `pyproject.toml`. package, version: who brings it.
    extras: optional parts of the package that it needs, in `pyproject.toml` behind the value: `module:NAME [extra]`.
    """

    group: str
    name: str
    value: str
    package: str
    version: str
    disabled: bool = False
    extras: tuple[str, ...] = ()

    @property
    def api(self) -> str:
        """The API, for a provider."""
        return self.group.removeprefix(PROVIDER_GROUP_PREFIX)

    @property
    def origin(self) -> str:
        return f"{self.package} {self.version}"

    @property
    def missing_extra(self) -> str | None:
        """Says that packages of its extras are not installed, and how to install them; None if they are there."""
        own = next(iter(importlib_metadata.Distribution.discover(name=self.package)), None) if self.extras else None
        missing = [
            found[1]
            for text in (own.requires or () if own else ())
            if (found := _REQUIRED_BY_EXTRA.match(text)) is not None
            and _canonical(found[2]) in map(_canonical, self.extras)
            and not any(importlib_metadata.Distribution.discover(name=found[1]))
        ]
        if not missing:
            return None
        extras = ",".join(self.extras)
        return (
            f"it needs the extra '{extras}' of {self.package} (not installed: {', '.join(missing)}): "
            f"pip install '{self.package}[{extras}]'"
        )

    def load(self) -> Any:
        """Import what it names. Raises DiscoveryError with package, version, entry point and cause."""
        if self.disabled:
            raise DiscoveryError(f"'{self.name}' ({self.origin}) is disabled by {DISABLE_VARIABLE}")
        try:
            return load_dotted(self.value)
        except Exception as error:
            raise DiscoveryError(
                f"'{self.name}' ({self.origin}, entry point {self.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error


def _name_and_version(dist: Any) -> tuple[str, str]:
    # Parsing all of METADATA (with the README in it) as an e-mail would make listings slow; the head is enough.
    text = "" if dist is None else dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
    head = dict(line.partition(": ")[::2] for line in text.partition("\n\n")[0].splitlines())
    return head.get("Name", "?").strip(), head.get("Version", "?").strip()


def known_packages() -> dict[str, str]:
    """Where to get a provider type that is not installed; hints only."""
    packages = json.loads(Path(__file__).with_name("known_packages.json").read_text(encoding="utf-8"))
    return {provider_type: package for package, types in packages.items() for provider_type in types}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Discovery:
    """The entry points of all llamastack groups, read once.

    entry_points: where they come from; for tests.
    """

    def __init__(
        self,
        entry_points: Callable[[], Iterable[importlib_metadata.EntryPoint]] = importlib_metadata.entry_points,
        disabled: Iterable[str] | None = None,
    ) -> None:
        self._entry_points = entry_points
        if disabled is None:
            disabled = re.split(r"[,\s]+", os.environ.get(DISABLE_VARIABLE, ""))
        self._disabled = {entry for entry in disabled if entry}

    def refresh(self) -> None:
        """Forget what was read: something was installed or removed."""
        self.__dict__.pop("installed", None)

    @cached_property
    def installed(self) -> tuple[Installed, ...]:
        """Everything, sorted by group, name and package."""
        found: list[Installed] = []
        read = cache(_name_and_version)
        off = {_canonical(entry) for entry in self._disabled}
        for entry in self._entry_points():
            if entry.group.startswith("llamastack."):
                package, version = read(entry.dist)  # type: ignore[arg-type]  # distributions are hashable
                disabled = entry.name in self._disabled or _canonical(package) in off
                value, _, extras = entry.value.partition("[")
                names = tuple(re.findall(r"[\w.-]+", extras))
                found.append(Installed(entry.group, entry.name, value.strip(), package, version, disabled, names))
        return tuple(sorted(found, key=lambda i: (i.group, i.name, i.package)))

    def group(self, group: str) -> list[Installed]:
        return [i for i in self.installed if i.group == group]

    def plugins(self) -> list[Installed]:
        """The installed plugins, required ones last."""
        return self.group(PLUGIN_GROUP) + self.group(REQUIRED_PLUGIN_GROUP)

    def providers(self, api: str | None = None) -> list[Installed]:
        """The installed providers, of one API or of all."""
        return [
            i for i in self.installed if i.group.startswith(PROVIDER_GROUP_PREFIX) and (api is None or i.api == api)
        ]

    def find(self, group: str, name: str, package: str | None = None) -> Installed:
        """The one entry called `name` in `group`.

        package: chooses among several that claim the same name.
        Raises DiscoveryError.
        """
        candidates = [i for i in self.group(group) if i.name == name]
        if package is not None:
            chosen = [i for i in candidates if _canonical(i.package) == _canonical(package)]
            if candidates and not chosen:
                raise DiscoveryError(
                    f"'{name}' is not brought by package '{package}' but by "
                    + " and ".join(i.origin for i in candidates)
                )
            candidates = chosen
        candidates = [i for i in candidates if not i.disabled] or candidates
        if len(candidates) > 1:
            raise DiscoveryError(
                f"'{name}' is claimed by {' and '.join(i.origin for i in candidates)}; "
                f"choose one with 'package: {candidates[0].package}'"
            )
        if not candidates:
            raise DiscoveryError(self._not_installed(group, name))
        return candidates[0]

    def _not_installed(self, group: str, name: str) -> str:
        known = self.group(group)
        if group.startswith(PROVIDER_GROUP_PREFIX):
            message = f"'{name}' is not installed for API '{group.removeprefix(PROVIDER_GROUP_PREFIX)}'."
        else:
            message = f"'{name}' is not installed."
        names = list(dict.fromkeys(i.name for i in known))
        near = get_close_matches(name, names, n=1, cutoff=0.7)
        package = known_packages().get(name)
        if package is not None:
            message += f" Try: pip install {shlex.quote(package)}."
        elif near:
            nearest = next(i for i in known if i.name == near[0])
            message += f" Did you mean '{nearest.name}' ({nearest.origin})?"
        return f"{message} Installed: {', '.join(names) or 'none'}."

    def load_spec(self, installed: Installed) -> ProviderSpec:
        """The spec of an installed provider; imports its package's `__init__`, not its SDK.

        Raises DiscoveryError when it is not a spec, is one of another API or type, or needs another core.
        """
        # These import pydantic, which a listing does not need.
        from llamastack.api.definition import API_VERSION
        from llamastack.provider.spec import ProviderSpec

        spec = installed.load()
        who = f"'{installed.name}' ({installed.origin}, entry point {installed.value})"
        if not isinstance(spec, ProviderSpec):
            raise DiscoveryError(f"{who} is a {type(spec).__name__}, not a ProviderSpec")
        if (spec.api, spec.provider_type) != (installed.api, installed.name):
            raise DiscoveryError(
                f"{who} is a spec of ({spec.api}, {spec.provider_type}), not of ({installed.api}, {installed.name})"
            )
        if not spec.accepts_api_version():
            has, upgrade = ".".join(map(str, API_VERSION)), "llamastack" if spec.needs_newer() else installed.package
            raise DiscoveryError(
                f"{who} needs API version {spec.api_version}, and this llamastack has {has}: pip install -U {upgrade}"
            )
        return spec


_default: Discovery | None = None


def default_discovery() -> Discovery:
    """The discovery of this process, made once."""
    global _default
    if _default is None:
        _default = Discovery()
    return _default
