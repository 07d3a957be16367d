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
        """Raises AuthenticationError if a plugin refuses or no plugin knows who it is, InternalError if one fails."""
        found, errors = await _ask(self._authenticate, Principal, AuthenticationError, request)
        if errors:
            raise errors.pop(0)
        if not found:
            raise AuthenticationError(
                "this server needs to know who asks: the request has no credentials that it knows"
            )
        return found[0]

    async def may(self, action: Action, resource: Resource) -> bool:
        """Whether the current principal may do it. Raises InternalError if a plugin fails."""
        principal = current_context().principal
        if principal is STACK_ITSELF or not self.authorizes:
            return True
        answers, errors = await _ask(self._authorize, bool, PermissionDeniedError, principal, action, resource)
        for place, error in enumerate(errors):
            if not isinstance(error, PermissionDeniedError):
                raise errors.pop(place)
        return bool(answers) and all(answers) and not errors

    async def check(self, action: Action, resource: Resource) -> None:
        """Raises PermissionDeniedError where the current principal may not do it."""
        if not await self.may(action, resource):
            raise self.denied(action, resource)

    def denied(self, action: Action, resource: Resource) -> PermissionDeniedError:
        """The error for what the current principal may not do."""
        principal = current_context().principal
        who = "a caller without a principal" if principal is None else f"'{principal.id}'"
        what = f"'{resource.identifier}' of {resource.api}" if resource.identifier else resource.api
        return PermissionDeniedError(f"{who} may not {action} {what} ({resource.method})")


async def _ask(
    hooks: Sequence[Implementation], kind: type[_T], refusal: type[LlamaStackError], *arguments: object
) -> tuple[list[_T], list[LlamaStackError]]:
    """The answers of all plugins, and what they raise: refusals, and an InternalError for each plugin that fails."""
    answers: list[_T] = []
    errors: list[LlamaStackError] = []
    for hook in hooks:
        try:
            answer = await hook.call(*arguments)
            if isinstance(answer, kind):
                answers.append(answer)
            elif answer is not None:
                errors.append(_failed(hook, TypeError(f"it gave a {type(answer).__name__}, not a {kind.__name__}")))
        except refusal as error:
            errors.append(error)
        except Exception as error:
            errors.append(_failed(hook, error))
    return answers, errors


def _failed(hook: Implementation, error: Exception) -> InternalError:
    _LOGGER.error("plugin %s failed in %s", hook.plugin, hook.hook, exc_info=error)
    return InternalError(f"plugin {hook.plugin} failed in {hook.hook}, so that nothing is allowed; the log says why")
