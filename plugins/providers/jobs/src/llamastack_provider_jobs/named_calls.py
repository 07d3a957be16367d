"""The call that a job names: found, and checked before it is queued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llamastack.api.definition import MethodDefinition, ReplyKind
from llamastack.provider import InvalidRequestError
from llamastack.provider.validation_paths import path_of

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
        raise _of_arguments(error) from None


def _of_arguments(error: InvalidRequestError) -> InvalidRequestError:
    """The error of a call, with the places that its faults have in `create_job`."""
    param = f"arguments.{error.param}" if error.param else "arguments"
    if not error.errors:
        return error.amend(f"arguments.{error.message}" if error.param else None, param=param)
    places = [["arguments", *_loc(fault)] for fault in error.errors]
    errors = [{**fault, "loc": place} for fault, place in zip(error.errors, places, strict=True)]
    message = "; ".join(f"{path_of(place)}: {fault['msg']}" for fault, place in zip(errors, places, strict=True))
    return error.amend(message, param=param, errors=errors)


def _loc(fault: Mapping[str, object]) -> Sequence[str | int]:
    loc = fault.get("loc")
    return loc if isinstance(loc, list | tuple) else ()
