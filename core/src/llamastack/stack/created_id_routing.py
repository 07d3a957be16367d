"""Sends the calls of an API without resources to the instance that an id, or `provider_id`, in a call names."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llamastack.api.created_ids import PROVIDER_ID, mark_in, mark_of
from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.api.id_fields import Change, ChangeIds, IdFields
from llamastack.api.inspect import ProviderStatus
from llamastack.provider.api_handle import Dispatch
from llamastack.provider.errors import InvalidRequestError, LlamaStackError, NotFoundError, NotSupportedError
from llamastack.provider.hookspecs import Action, Resource
from llamastack.provider.provider_call import ProviderCall, ProviderMethod
from llamastack.provider.streams import Stream, close, closing
from llamastack.stack.call_chain import CallChain
from llamastack.stack.merged_lists import merged_list
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.stack")


class IdRoutedCalls:
    """The calls of one API. Outside its provider an id has the mark of the instance; hooks see ids as callers do."""

    def __init__(self, api: ApiDefinition, instances: Sequence[SupervisedProvider], calls: CallChain) -> None:
        self._api = api
        self._instances = instances
        self._by_id = {instance.provider_id: instance for instance in instances}
        self._marks = {provider_id: mark_of(api.name, provider_id) for provider_id in self._by_id}
        self._by_mark = {self._marks[instance.provider_id]: instance for instance in instances}
        self._only = instances[0] if len(instances) == 1 else None
        self._fields = IdFields(api.created_ids)
        self._access = calls.access
        self._send = calls.compose(self._find_target)
        self._check = calls.compose_check()

    def dispatch_of(self, method: MethodDefinition, *, only_checked: bool = False) -> Dispatch:
        """Calls of a method of the API's Protocol; or only the checks before the call."""
        send = self._check if only_checked else self._send
        only, ids = self._only, self._fields.arguments(method)
        by = self._provider_method(method, ids)

        def call(instance: SupervisedProvider, arguments: Mapping[str, object]) -> Awaitable[object]:
            ids = (method.api, method.name, "", instance.provider_id)
            return send(ProviderCall(*ids, method.gives_pieces(arguments), arguments, None, by, instance))

        if only is not None and not self._api.created_ids and PROVIDER_ID not in method.parameters:
            return lambda arguments: call(only, arguments)

        async def dispatch(arguments: dict[str, Any]) -> object:
            instance = self._named(ids, arguments) or only
            if instance is None and method.gives_list and method.web.instances == "named":
                sources = {self._marks[each.provider_id]: each for each in await self._listed(method)}
                return await merged_list(method, arguments, sources, call)
            if instance is None and method.web.instances == "all":
                return await self._call_all(method, lambda each: call(each, arguments))
            try:
                if instance is None and method.web.instances == "first":
                    return await self._call_first(method, lambda each: call(each, arguments))
                return await call(instance or self._default(method), arguments)
            except LlamaStackError as error:
                self._explain(error, ids, arguments)
                raise

        return dispatch

    def _provider_method(self, method: MethodDefinition, ids: Mapping[str, ChangeIds]) -> ProviderMethod:
        changes = ids if method.page_type is None else {**ids, "after": _after}
        is_bare = not changes and PROVIDER_ID not in method.parameters

        def own_arguments(call: ProviderCall) -> Mapping[str, object]:
            return call.request if is_bare else _own(call.request, changes, self._marks[call.provider_id])

        native = (method.name, method.name, own_arguments, lambda request: request)
        reply, piece = self._fields.reply(method)
        if reply is None and piece is None:
            return ProviderMethod(*native, by_name=True)
        return _MarkingMethod(*native, by_name=True, reply=reply, piece=piece, marks=self._marks)

    # ---- which instance ----------------------------------------------------------------------------------------------

    def _named(self, ids: Mapping[str, ChangeIds], arguments: Mapping[str, object]) -> SupervisedProvider | None:
        """The instance that a call names; None if it names none. Raises NotFoundError and InvalidRequestError."""
        found: tuple[SupervisedProvider, str] | None = None
        if (provider_id := arguments.get(PROVIDER_ID)) is not None:
            instance = self._by_id.get(str(provider_id))
            if instance is None:
                raise InvalidRequestError(
                    f"'{provider_id}' is no provider of API '{self._api.name}'; allowed: {self._known}",
                    param=PROVIDER_ID,
                )
            found = (instance, f"provider_id is '{provider_id}'")
        for name, marked in _ids_in(ids, arguments):
            instance = self._owner(name, marked)
            if instance is None:
                continue
            says = f"{name} '{marked}' belongs to provider '{instance.provider_id}'"
            if found is not None and found[0] is not instance:
                raise InvalidRequestError(f"{found[1]}, but {says}; a call goes to one provider", param=name)
            found = found or (instance, says)
        return None if found is None else found[0]

    def _owner(self, name: str, marked: str) -> SupervisedProvider | None:
        mark = mark_in(marked)
        owner = self._by_mark.get(mark)
        if owner is None and self._only is None:
            why = _FOREIGN if mark else "does not say which provider it belongs to; give ids back as they were returned"
            raise NotFoundError(
                f"{name} '{marked}' {why}. Providers of API '{self._api.name}': {self._known}", param=name
            )
        return owner

    def _default(self, method: MethodDefinition) -> SupervisedProvider:
        """The instance of a call that names none."""
        if not method.web.creates:
            raise InvalidRequestError(
                f"{method.name} must name a provider of API '{self._api.name}': {self._known}", param=PROVIDER_ID
            )
        healthy = (each for each in self._instances if each.status is ProviderStatus.healthy)
        return next(healthy, self._instances[0])

    def _able(self, method: MethodDefinition) -> Sequence[SupervisedProvider]:
        """The instances that can serve a method; one that says why not, if there are none."""
        needed = method.web.capability or ""
        return [each for each in self._instances if not each.plan.spec.capabilities.refused(needed)] or [
            self._instances[0]
        ]

    async def _call_first(
        self, method: MethodDefinition, call: Callable[[SupervisedProvider], Awaitable[object]]
    ) -> object:
        """The reply of the first instance whose config lets it give one; healthy ones come first."""
        refused: list[LlamaStackError] = []
        for instance in sorted(self._able(method), key=lambda each: each.status is not ProviderStatus.healthy):
            try:
                return await call(instance)
            except NotSupportedError as error:
                refused.append(error)
        raise refused.pop(0)

    async def _call_all(
        self, method: MethodDefinition, call: Callable[[SupervisedProvider], Awaitable[object]]
    ) -> object:
        """The first reply. A call fails only if it fails at every instance."""
        replies: list[object] = []
        failed: list[LlamaStackError] = []
        for instance in self._able(method):
            try:
                replies.append(await call(instance))
            except LlamaStackError as error:
                failed.append(error)
        if not replies:
            raise failed[0]
        for each in failed:
            _LOGGER.warning("%s failed at one of several providers: %s", method.name, each.message)
        return replies[0]

    async def _listed(self, method: MethodDefinition) -> Sequence[SupervisedProvider]:
        """The instances whose entries a list has: those that the current principal may call."""
        if not self._access.authorizes:
            return self._instances
        resources = {each: Resource(method.api, method.name, "", each.provider_id) for each in self._instances}
        allowed = [each for each, resource in resources.items() if await self._access.may(Action.CALL, resource)]
        return allowed or self._instances[:1]  # its call says why it is denied

    async def _find_target(self, call: ProviderCall) -> ProviderCall:
        instance = self._by_id.get(call.provider_id)
        if instance is None:
            raise NotFoundError(
                f"API '{call.api}' has no provider '{call.provider_id}'; providers: {self._known}", param=PROVIDER_ID
            )
        return replace(call, target=instance)

    @property
    def _known(self) -> str:
        return ", ".join(self._by_id)

    def _explain(self, error: LlamaStackError, ids: Mapping[str, ChangeIds], arguments: Mapping[str, object]) -> None:
        """Have the error name the ids as the caller does."""
        for name, marked in _ids_in(ids, arguments):
            mark = mark_in(marked)
            if mark in self._by_mark:
                error.amend(error.message.replace(f"'{marked.removesuffix(mark)}'", f"'{marked}'"))
            elif mark and isinstance(error, NotFoundError):
                error.amend(f"{error.message}. {name} '{marked}' {_FOREIGN}")


_FOREIGN = "belongs to a provider that this stack does not have"


@dataclass(frozen=True, slots=True)
class _MarkingMethod(ProviderMethod):
    """A method of providers whose replies hold ids. reply, piece: change them in each. marks: by provider_id."""

    reply: ChangeIds | None = None
    piece: ChangeIds | None = None
    marks: Mapping[str, str] = field(default_factory=dict)

    async def send(self, provider: object, call: ProviderCall) -> object:
        reply = await ProviderMethod.send(self, provider, call)
        mark = self.marks[call.provider_id]
        if not isinstance(reply, AsyncIterator):
            return reply if self.reply is None else self.reply(reply, lambda own: own + mark)
        if self.piece is None:
            return reply
        return Stream(_changed(reply, self.piece, lambda own: own + mark), lambda: close(reply))


async def _changed(pieces: AsyncIterator[object], change_ids: ChangeIds, change: Change) -> AsyncIterator[object]:
    async with closing(pieces):
        async for piece in pieces:
            yield change_ids(piece, change)


def _own(request: Mapping[str, object], changes: Mapping[str, ChangeIds], mark: str) -> Mapping[str, object]:
    """The arguments for the instance with this mark."""
    own = {name: value for name, value in request.items() if name != PROVIDER_ID}
    for name, change_ids in changes.items():
        if own.get(name) is not None:
            own[name] = change_ids(own[name], lambda marked: marked.removesuffix(mark))
    return own


def _after(value: str, change: Change) -> str | None:
    # A mark alone is the beginning of this instance's entries.
    return change(value) or None


def _ids_in(ids: Mapping[str, ChangeIds], arguments: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """(argument, id) of each id in a call."""
    for name, change_ids in ids.items():
        found: list[str] = []

        def look(marked: str, found: list[str] = found) -> str:
            found.append(marked)
            return marked

        change_ids(arguments.get(name), look)
        yield from ((name, marked) for marked in found)
