"""The call that a job names: found, and checked before it is queued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llamastack.api.definition import MethodDefinition, ReplyKind
from llamastack.provider import InvalidRequestError

if TYPE_CHECKING:
    from llamastack.provider import Deps
    from llamastack.provider.api_handle import ApiMethod


def find_method(deps: Deps, api: str, method: str) -> ApiMethod:
    """Raises InvalidRequestError that says what is allowed."""
    apis = sorted(name for name in deps if not deps[name].definition.implemented_by_stack)
    if api not in apis:
        raise InvalidRequestError(f"api: '{api}' is not one of {', '.join(apis)}", param="api")
    methods: Mapping[str, ApiMethod] = deps[api].methods
    allowed = [name for name, each in methods.items() if _can_run(each.definition)]
    if method not in allowed:
        raise InvalidRequestError(
            f"method: '{method}' of {api} cannot run as a job; allowed: {', '.join(allowed)}", param="method"
        )
    return methods[method]


def _can_run(method: MethodDefinition) -> bool:
    """Whether its arguments and its reply are JSON, and the same for everybody who may call it."""
    takes_bytes = method.file_parameters or method.bytes_parameter is not None
    return method.reply_kind is ReplyKind.JSON and not takes_bytes and not method.gives_list


async def check_call(call: ApiMethod, arguments: Mapping[str, object]) -> None:
    """Raises what the call by the current principal would raise before its provider is called."""
    if call.definition.gives_pieces(arguments):
        raise InvalidRequestError("arguments.stream: a job has one reply, no stream", param="arguments.stream")
    try:
        await call.check(**arguments)
    except InvalidRequestError as error:
        raise error.amend(f"arguments.{error.message}", param=f"arguments.{error.param}") from None
