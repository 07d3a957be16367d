"""How broken providers are made and put before the suite: each breaks one thing that one check is there to find."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from importlib_metadata import EntryPoint
from pydantic import BaseModel

import llamastack_conformance
from llamastack.provider import Capabilities, ProviderSpec
from llamastack.stack.discovery import Discovery
from llamastack_conformance.checks import CheckFailure, NotApplicable, checks_of
from llamastack_conformance.provider_under_test import Subject

PROVIDER_ID = "under-test"
_Class = TypeVar("_Class", bound=type)


class _Distribution:
    """What brings the broken providers, as far as discovery looks."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read_text(self, _: str) -> str:
        return f"Name: {self.name}\nVersion: 0.1.0\n\n"


def entry_point(name: str, value: str, group: str, package: str = "llamastack-provider-sample") -> EntryPoint:
    """An entry point as if a package had it."""
    made: EntryPoint = EntryPoint(name, value, group)._for(_Distribution(package))  # type: ignore[no-untyped-call]
    return made


@dataclass
class Broken:
    """A provider with one thing broken.

    check_id: the check that has to find it. spec: of the provider. config, settings: of the run config.
    """

    check_id: str
    api: str
    name: str
    spec: ProviderSpec
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    providers: Mapping[str, Any] = field(default_factory=dict)
    package: str = "llamastack-provider-sample"
    module: str = __name__

    def subject(self, backend: str) -> Subject:
        """The provider as the suite gets it. backend: URL of the scripted one."""
        attribute = f"SPEC_{self.name}"
        setattr(sys.modules[__name__], attribute, self.spec)
        entry = entry_point(
            self.spec.provider_type,
            f"{self.module}:{attribute}",
            f"llamastack.providers.{self.api}",
            self.package,
        )
        config = {
            name: value.format(url=backend, name=self.name) if isinstance(value, str) else value
            for name, value in self.config.items()
        }
        providers = {
            **self.providers,
            self.api: [{"provider_id": PROVIDER_ID, "provider_type": self.spec.provider_type, "config": config}],
        }
        document = {"providers": providers, "x-conformance": {"parallel_calls": 8, "time_limit_s": 20, **self.settings}}
        return Subject(
            self.api, self.spec.provider_type, document, discovery=Discovery(lambda: [*_others(self), entry])
        )

    def outcome(self, backend: str) -> str:
        """`failed: ...`, `passed` or `not applicable: ...`."""
        suite = getattr(llamastack_conformance, llamastack_conformance.SUITES[self.api])
        method = next(name for name, check in checks_of(suite) if check.id == self.check_id)
        subject = self.subject(backend)
        try:
            with subject.open():
                getattr(suite(), method)(subject)
        except CheckFailure as failure:
            return f"failed: {failure.got}"
        except NotApplicable as reason:
            return f"not applicable: {reason}"
        return "passed"


def _others(broken: Broken) -> Iterator[EntryPoint]:
    """The real installed providers that the run config names beside the broken one, and the stores."""
    from importlib_metadata import entry_points

    for entry in entry_points():
        if entry.group == "llamastack.stores" or (
            entry.group.startswith("llamastack.providers.") and not entry.group.endswith(f".{broken.api}")
        ):
            yield entry


BROKEN: list[Broken] = []


def spec_of(base: ProviderSpec, name: str, factory: Callable[..., Any], **changes: Any) -> ProviderSpec:
    """`base` under another type, with a factory of its own."""
    attribute = f"make_{name}"
    setattr(sys.modules[__name__], attribute, factory)
    capabilities = {**base.capabilities, **changes.pop("capabilities", {})}
    dropped = changes.pop("without", ())
    return replace(
        base,
        provider_type=f"remote::broken-{name.lower().replace('_', '-')}",
        factory=f"{__name__}:{attribute}",
        capabilities=Capabilities(**{k: v for k, v in capabilities.items() if k not in dropped}),
        **changes,
    )


def config_class(name: str, cls: type[BaseModel]) -> str:
    """The dotted name of a config class that is made here."""
    setattr(sys.modules[__name__], name, cls)
    return f"{__name__}:{name}"


def breaker(
    api: str, base: ProviderSpec, factory_of: Callable[[type], Callable[..., Any]], **defaults: Any
) -> Callable[..., Callable[[_Class], _Class]]:
    """A decorator for the broken classes of one API: `@broken("check.id", settings={...}, api_version="...")`."""

    def broken(
        check_id: str, *, config: Any = None, settings: Any = None, **changes: Any
    ) -> Callable[[_Class], _Class]:
        def register(cls: _Class) -> _Class:
            name = f"{api}_{cls.__name__}"
            made = changes.pop("factory", None) or factory_of(cls)
            BROKEN.append(
                Broken(
                    check_id,
                    api,
                    name,
                    spec_of(base, name, made, **changes),
                    config=config if config is not None else defaults.get("config", {}),
                    settings={**defaults.get("settings", {}), **(settings or {})},
                    providers=defaults.get("providers", {}),
                )
            )
            return cls

        return register

    return broken
