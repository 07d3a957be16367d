"""Checks of the package and its spec, without network and without a started provider."""

from __future__ import annotations

import functools
import inspect
import os
import re
import subprocess
import sys
from types import ModuleType
from typing import get_type_hints

import importlib_metadata
from pydantic import BaseModel

from llamastack.api.definition import API_VERSION
from llamastack.api.schema import Schema
from llamastack.provider.compliance import check_provider
from llamastack.provider.import_path import load_dotted
from llamastack_conformance.checks import CheckFailure, NotUsable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.suite import Suite

_IMPORT_BUDGET_S = 0.25
_SECRET_NAME = re.compile(r"(^|_)(key|token|secret|password|credential|credentials)$")
# It runs in a separate interpreter. The core's modules are imported first, so they do not count as the provider's.
_IMPORT = """
import sys, time
from llamastack.provider import Api, Capabilities, InlineProviderSpec, RemoteProviderSpec
import llamastack.provider.spec
before = set(sys.modules)
started = time.process_time()
import {module}
spent = time.process_time() - started
print(spent, *sorted(m for m in set(sys.modules) - before))
"""


@functools.cache
def _imported(module: str) -> tuple[float, list[str]]:
    """The least CPU seconds that importing the spec's module takes, and the modules that it imports."""
    best, brought = float("inf"), list[str]()
    for _ in range(3):
        done = subprocess.run(  # noqa: S603 - this interpreter, and the name of an installed module
            [sys.executable, "-c", _IMPORT.format(module=module)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"it ends the process with exit status {done.returncode}"]
            raise NotUsable(f"importing {module} fails: {lines[-1]}")
        if not done.stdout.strip():
            raise NotUsable(f"importing {module} ends the process")  # sys.exit() is no error
        spent, *brought = done.stdout.splitlines()[-1].split()  # a module may print
        best = min(best, float(spent))
    return best, brought


def _import_of(subject: Subject) -> tuple[float, list[str]]:
    try:
        return _imported(_spec_module(subject))
    except NotUsable:
        _ = subject.spec  # it has the same cause, in words that other checks have, too
        raise


class StaticChecks(Suite):
    """Of every provider."""

    @check(
        "static.entry-point",
        tier=Tier.static,
        mend="let the entry point in llamastack.providers.<api> name a ProviderSpec with the same api and type",
    )
    async def test_static_entry_point(self, subject: Subject) -> None:
        """the entry point names a ProviderSpec of this API and type, for this version of the core"""
        spec = subject.spec
        if not subject.installed.value.startswith(spec.factory.partition(".")[0].partition(":")[0]):
            raise CheckFailure(f"the entry point is {subject.installed.value}, the factory {spec.factory}")

    @check(
        "static.import",
        tier=Tier.static,
        mend="import the SDK in the module that the spec's `factory` names, not in the one that holds the spec",
    )
    async def test_static_import(self, subject: Subject) -> None:
        """importing the spec's module imports only llamastack and its adapters: no SDK, no client, no framework"""
        _, brought = _import_of(subject)
        own = _spec_module(subject).partition(".")[0]
        # The adapters have words for specs. Their other modules import HTTP clients, which are foreign here.
        allowed = {own, "llamastack", "llamastack_adapters", *sys.stdlib_module_names}
        foreign = sorted({m.partition(".")[0] for m in brought} - allowed)
        if foreign:
            raise CheckFailure(f"it brings {', '.join(foreign)}")

    @check("static.import-time", tier=Tier.static, mend="do nothing at import; put only the spec into its module")
    async def test_static_import_time(self, subject: Subject) -> None:
        """importing the spec's module takes at most 0.25 s of CPU time"""
        spent, _ = _import_of(subject)
        if spent > _IMPORT_BUDGET_S:
            raise CheckFailure(f"it takes {spent:.2f} s")

    @check("static.metadata", tier=Tier.static, mend="complete the [project] table of pyproject.toml")
    async def test_static_metadata(self, subject: Subject) -> None:
        """the package declares its summary, license, README and Python versions, and depends on llamastack"""
        metadata = importlib_metadata.distribution(subject.installed.package).metadata
        described = metadata.get("Description")
        wanted = {
            "description": metadata.get("Summary"),
            "readme": described if described and described.strip() else None,
            "requires-python": metadata.get("Requires-Python"),
            "license": metadata.get("License-Expression")
            or metadata.get("License")
            or [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")],
            "dependencies with llamastack": subject.installed.package == "llamastack"
            or [r for r in metadata.get_all("Requires-Dist") or [] if re.match(r"llamastack(?![\w-])", r)],
        }
        missing = [name for name, value in wanted.items() if not value]
        if missing:
            raise CheckFailure(f"it lacks {', '.join(missing)}")

    @check("static.typed", tier=Tier.static, mend="put an empty file `py.typed` into the package")
    async def test_static_typed(self, subject: Subject) -> None:
        """the package declares that it has types (PEP 561)"""
        from importlib.resources import files

        package = _spec_module(subject).partition(".")[0]
        try:
            module: ModuleType = load_dotted(package)
        except Exception as error:
            _ = subject.spec  # it has the same cause, in words that other checks have, too
            raise NotUsable(f"importing {package} fails: {type(error).__name__}: {error}") from None
        try:
            typed = files(module).joinpath("py.typed").is_file()
        except TypeError:
            raise CheckFailure(f"{package} is a module, but types need a package") from None
        if not typed:
            raise CheckFailure(f"{package} has no py.typed")

    @check("static.api-version", tier=Tier.static, mend='give api_version both bounds, as in ">=1.0,<2"')
    async def test_static_api_version(self, subject: Subject) -> None:
        """the spec's range of API versions ends before the next major version"""
        if subject.spec.accepts_api_version((API_VERSION[0] + 1, 0)):
            raise CheckFailure(f"api_version is {subject.spec.api_version}, which takes {API_VERSION[0] + 1}.0, too")

    @check("static.dependencies", tier=Tier.static, mend="name existing APIs, and not the provider's own")
    async def test_static_dependencies(self, subject: Subject) -> None:
        """the APIs that the spec depends on exist"""
        needed = (*subject.spec.api_dependencies, *subject.spec.optional_api_dependencies)
        unknown = [name for name in needed if name not in subject.definitions or name == subject.api]
        if unknown:
            raise CheckFailure(f"it depends on {', '.join(unknown)}; there are {', '.join(subject.definitions)}")

    @check("static.capabilities", tier=Tier.static, mend="name every capability of the API in the spec, and no other")
    async def test_static_capabilities(self, subject: Subject) -> None:
        """the spec declares for every capability of its API whether the provider has it"""
        declared, known = set(subject.spec.capabilities), set(subject.definition.capabilities)
        faults = [f"does not say `{name}`" for name in sorted(known - declared)]
        faults += [f"says `{name}`, which is no capability of this API" for name in sorted(declared - known)]
        if faults:
            raise CheckFailure(f"it {'; '.join(faults)}")

    @check("static.factory", tier=Tier.static, mend="write `async def get_adapter_impl(config: C, deps: Deps) -> P`")
    async def test_static_factory(self, subject: Subject) -> None:
        """the factory is `async def`, takes (config, deps), and declares the class that it returns"""
        factory = subject.factory
        if not inspect.iscoroutinefunction(factory):
            raise CheckFailure(f"{subject.spec.factory} is not async")
        try:
            inspect.signature(factory).bind(None, None)
        except TypeError as error:
            raise CheckFailure(f"{subject.spec.factory} cannot be called with (config, deps): {error}") from None
        if _provider_class(subject) is None:
            raise CheckFailure(f"{subject.spec.factory} declares no return type")

    @check(
        "static.protocol", tier=Tier.static, mend="give the class the methods of its Protocols, with their arguments"
    )
    async def test_static_protocol(self, subject: Subject) -> None:
        """the class that the factory returns has every method of its API, async and with the right arguments"""
        cls = _provider_class(subject)
        if cls is None:
            raise CheckFailure("the class is not known: the factory declares no return type")
        faults = check_provider(subject.definition, object.__new__(cls), subject.spec.capabilities)
        if faults:
            raise CheckFailure(f"{cls.__name__}: {'; '.join(faults)}")

    @check("static.config-described", tier=Tier.static, mend='write `Field(description="...")`, with the unit')
    async def test_static_config_described(self, subject: Subject) -> None:
        """every field of the config, and of the provider data, has a description"""
        bare = [
            f"{model.__name__}.{name}"
            for model in _models(subject)
            for name, field in Schema.of(model).fields.items()
            if not field.description
        ]
        if bare:
            raise CheckFailure(f"without one: {', '.join(bare)}")

    @check("static.config-strict", tier=Tier.static, mend='set `model_config = ConfigDict(extra="forbid")`')
    async def test_static_config_strict(self, subject: Subject) -> None:
        """a misspelt key of the config is an error"""
        if subject.config_class.model_config.get("extra") != "forbid":
            raise CheckFailure(f"{subject.config_class.__name__} takes any key")

    @check("static.secrets", tier=Tier.static, mend="make it a pydantic.SecretStr")
    async def test_static_secrets(self, subject: Subject) -> None:
        """fields with a name such as key, token, secret or password have a secret type"""
        open_ones = [
            f"{model.__name__}.{name}"
            for model in _models(subject)
            for name, field in Schema.of(model).fields.items()
            if _SECRET_NAME.search(name) and "string" in field.values_of("type") and not field.is_secret
        ]
        if open_ones:
            raise CheckFailure(f"plain text: {', '.join(open_ones)}")


def _spec_module(subject: Subject) -> str:
    return subject.installed.value.partition(":")[0]


def _models(subject: Subject) -> list[type[BaseModel]]:
    return [subject.config_class, *([subject.data_model] if subject.data_model else [])]


def _provider_class(subject: Subject) -> type | None:
    factory = subject.factory
    try:
        found = get_type_hints(factory).get("return")
    except Exception as error:
        raise CheckFailure(f"the types of {subject.spec.factory} cannot be read: {error}") from None
    return found if isinstance(found, type) and found is not object else None
