"""Authentication and authorization by plugins. Every plugin is asked; one that denies or fails counts most."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

from llamastack.provider.context import STACK_ITSELF, Principal, current_context
from llamastack.provider.errors import AuthenticationError, InternalError, LlamaStackError, PermissionDeniedError
from llamastack.provider.hookspecs import Action, IncomingRequest, Resource
from llamastack.stack.hook_calls import Implementation

_T = TypeVar("_T")
_LOGGER = logging.getLogger("llamastack.access")


class AccessControl:
    """Asks the plugins that have `llamastack_authenticate` or `llamastack_authorize`."""

    def __init__(self, authenticate: Sequence[Implementation], authorize: Sequence[Implementation]) -> None:
        self._authenticate = authenticate
        self._authorize = authorize
        self.authenticates = bool(authenticate)
        """Whether requests over HTTP need a principal."""
        self.authorizes = bool(authorize)
        """Whether `may` can deny anything."""

    async def authenticate(self, request: IncomingRequest) -> Principal:
        """Raises AuthenticationError where a plugin refuses or none knows who it is, InternalError where one fails."""
        found: list[Principal] = []
        refusals: list[LlamaStackError] = []
        for hook in self._authenticate:
            try:
                answer = await hook.call(request)
                if answer is not None:
                    found.append(_of_kind(Principal, answer))
            except AuthenticationError as error:
                refusals.append(error)
            except Exception as error:
                refusals.append(_failed(hook, error))
        if refusals:
            raise refusals.pop(0)
        if not found:
            raise AuthenticationError(
                "this server needs to know who asks: the request has no credentials that it knows"
            )
        return found[0]

    async def may(self, action: Action, resource: Resource) -> bool:
        """Whether the current principal may do it. Raises InternalError where a plugin fails."""
        principal = current_context().principal
        if principal is STACK_ITSELF or not self.authorizes:
            return True
        allowed, denied = False, False
        failures: list[LlamaStackError] = []
        for hook in self._authorize:
            try:
                answer = await hook.call(principal, action, resource)
                # perf: llamastack-v1-hooks. The usual answers need no further check.
                if answer is True:
                    allowed = True
                elif answer is not None and not _of_kind(bool, answer):
                    denied = True
            except PermissionDeniedError:
                denied = True
            except Exception as error:
                failures.append(_failed(hook, error))
        if failures:
            raise failures.pop(0)
        return allowed and not denied

    async def check(self, action: Action, resource: Resource) -> None:
        """Raises PermissionDeniedError where the current principal may not do it."""
        if not await self.may(action, resource):
            raise self.denied(action, resource)

    def denied(self, action: Action, resource: Resource) -> PermissionDeniedError:
        """The error for what the current principal may not do."""
        principal = current_context().principal
        who = "somebody who is not known" if principal is None else f"'{principal.id}'"
        what = f"'{resource.identifier}' of {resource.api}" if resource.identifier else resource.api
        return PermissionDeniedError(f"{who} may not {action} {what}")


def _of_kind(kind: type[_T], answer: object) -> _T:
    if not isinstance(answer, kind):
        raise TypeError(f"it gave a {type(answer).__name__}, not a {kind.__name__}")
    return answer


def _failed(hook: Implementation, error: Exception) -> InternalError:
    _LOGGER.error("plugin %s failed in %s", hook.plugin, hook.hook, exc_info=error)
    return InternalError(f"plugin {hook.plugin} failed in {hook.hook}, so that nothing is allowed; the log says why")
