"""The suite of an API for which no package brings one: what follows from the API's definition."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from llamastack.api.created_ids import PROVIDER_ID
from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.api.files import File
from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.streams import close
from llamastack_conformance.checks import NotApplicable
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.plugin_api import MethodChecks, PluginApiConformance, RoutedPluginApiConformance
from llamastack_conformance.suites.suite import Probe, refused

_PLAIN: dict[Any, Any] = {str: "hello", int: 1, float: 1.0, bool: False, bytes: b"hello"}


class _CannotGuess(Exception):
    """No argument follows from a type."""


class DerivedCalls(MethodChecks):
    """Calls whose arguments follow from the types of the parameters, or stand in `x-conformance.examples`."""

    guesses = True
    _kept: Mapping[str, str] = types.MappingProxyType({})

    async def call(self, running: Running, text: str = "hello") -> Any:
        for method in self._methods(running):
            try:
                return await self._do(running, method, {})
            except (_CannotGuess, InvalidRequestError):
                continue
        raise NotApplicable(f"no call of API '{self.api}' follows from its types; name one in x-conformance.examples")

    async def examples(self, running: Running) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        ids = await self._created(running)
        for method in self._methods(running):
            try:
                yield method.name, self._arguments(running, method, ids)
            except _CannotGuess:
                continue

    async def probe(self, running: Running, capability: str) -> Probe:
        ids = await self._created(running)
        for method in running.subject.definition.methods.values():
            if method.web.capability == capability:
                try:
                    return Probe(method.name, self._arguments(running, method, ids), lambda _: True)
                except _CannotGuess:
                    continue
        raise NotApplicable(f"no call that needs `{capability}` follows from its types")

    async def put_content(self, running: Running) -> None:
        self._kept = await self._created(running)

    async def content(self, running: Running) -> Any:
        """What a GET returns of an id that another call created."""
        for method in self._methods(running):
            names = set(self._required(method))
            if "GET" in method.web.methods and names and names <= self._kept.keys():
                result = await self._do(running, method, self._kept)
                if isinstance(result, BaseModel):
                    return result.model_dump(mode="json")
                await close(result)
        return await super().content(running)

    def unserved_objects(self, subject: Subject) -> list[Any]:
        """What the settings name; by default only a provider that registers nothing must refuse an unknown name."""
        named = "unserved" in subject.settings.model_fields_set
        return super().unserved_objects(subject) if named or not subject.declares("registration") else []

    def _methods(self, running: Running) -> Iterator[MethodDefinition]:
        """What the provider declares; methods that delete come last."""
        found = [
            method
            for method in running.subject.definition.methods.values()
            if method.web.capability is None or running.subject.declares(method.web.capability)
        ]
        yield from sorted(found, key=lambda method: "DELETE" in method.web.methods)

    async def _do(self, running: Running, method: MethodDefinition, ids: Mapping[str, str]) -> Any:
        return await getattr(running.calls, method.name)(**self._arguments(running, method, ids))

    async def _created(self, running: Running) -> dict[str, str]:
        """Ids by name, from the methods that create them and need no other id."""
        ids: dict[str, str] = {}
        for method in self._methods(running):
            name = method.web.creates
            if name is None or name in ids:
                continue
            try:
                made = await self._do(running, method, ids)
            except (_CannotGuess, InvalidRequestError):
                continue
            ids[name] = getattr(made, name, None) or made.id
        return ids

    def _required(self, method: MethodDefinition) -> Iterator[str]:
        for name, parameter in method.parameters.items():
            if parameter.default is parameter.empty:
                yield name

    def _arguments(self, running: Running, method: MethodDefinition, ids: Mapping[str, str]) -> dict[str, Any]:
        """Raises _CannotGuess."""
        given = running.subject.settings.examples.get(method.name, {})
        found: dict[str, Any] = {}
        if PROVIDER_ID in method.parameters:
            found[PROVIDER_ID] = running.provider_id
        if method.web.routed_by is not None:
            found[method.web.routed_by] = running.qualified(running.first_object())
        known = {**found, **ids, **given}
        for name in (*found, *given, *self._required(method)):
            if name in known:
                found[name] = known[name]
            elif name in running.subject.definition.created_ids or name.endswith(("_id", "_ids")):
                raise _CannotGuess(name)
            else:
                found[name] = _guess(method.hints[name])
        return found


def _guess(hint: Any) -> Any:
    """A value of a type. Raises _CannotGuess."""
    made = _guess_plain(hint)
    if isinstance(made, File):
        return made
    try:
        return TypeAdapter(hint).validate_python(made)
    except ValidationError as error:
        raise _CannotGuess(str(hint)) from error


def _guess_plain(hint: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if hint is File:
        return File(b"hello", filename="hello.txt", media_type="text/plain")
    if origin in (Annotated, Union, types.UnionType):
        return _guess_plain(args[0])
    if origin is Literal:
        return args[0]
    if origin is list:
        return [_guess(args[0])]
    if hint is dict or origin is dict:
        return {}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next(iter(hint))
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return {n: _guess(f.annotation) for n, f in hint.model_fields.items() if f.is_required()}
    raise _CannotGuess(str(hint))


def derived_suite(definition: ApiDefinition) -> type:
    """A suite of an API, with the checks that every API has, and a check of refusal for each of its capabilities."""
    base = PluginApiConformance if definition.pair is None else RoutedPluginApiConformance
    of_methods = {method.web.capability for method in definition.methods.values() if method.web.capability}
    attributes: dict[str, Any] = {
        "api": definition.name,
        "__module__": __name__,
        **{f"test_{name}_refused": refused(name) for name in sorted(of_methods)},
    }
    return type(f"Derived{definition.name.capitalize()}Conformance", (DerivedCalls, base), attributes)
