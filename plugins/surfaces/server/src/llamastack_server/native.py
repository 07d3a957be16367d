"""The native surface: one endpoint per web method of the stack's APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError
from starlette.types import Scope

from llamastack.provider.api_handle import ApiMethod
from llamastack.provider.errors import InternalError, InvalidRequestError
from llamastack.provider.streams import Stream, close
from llamastack.provider.validation import invalid_request
from llamastack_server.encoding import event_of, json_by
from llamastack_server.endpoint import Endpoint
from llamastack_server.errors import NATIVE_ERRORS
from llamastack_server.process_limits import ProcessLimits
from llamastack_server.requests import bad_request, json_object

_MOST_PARAMETERS = 1000


def read_arguments(method: ApiMethod, body: bytes, query: bytes) -> dict[str, Any]:
    """The arguments that a request gives, from its JSON body and its query.

    Raises InvalidRequestError naming the path of the first fault.
    """
    model = method.definition.request_model
    if not query:
        try:
            return model.model_validate_json(body or b"{}").arguments()
        except ValidationError as error:
            raise bad_request(error, model, body) from None
    given: dict[str, Any] = {}
    if body:
        given.update(json_object(body))
    for name, value in _parameters_of(query):
        if name in method.definition.list_parameters:
            given.setdefault(name, []).append(value)
            continue
        if name in given:
            raise InvalidRequestError(f"'{name}' is given twice", param=name)
        given[name] = value
    try:
        return model.model_validate(given).arguments()
    except ValidationError as error:
        raise invalid_request(error, model, given) from None


def _parameters_of(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise InvalidRequestError(f"the query has more than {_MOST_PARAMETERS} parameters") from None


class NativeEndpoint(Endpoint):
    """One method of one API."""

    # Its unions try a list of numbers, which nothing here takes, as one thing after the other.
    numbers_in_one = 2

    def __init__(self, method: ApiMethod, load: ProcessLimits) -> None:
        super().__init__(NATIVE_ERRORS, load)
        self.method = method
        self._result = method.definition.result
        self._piece = method.definition.piece

    async def respond(self, scope: Scope, body: bytes) -> bytes | AsyncIterator[bytes]:
        result = await self.method.dispatch(read_arguments(self.method, body, scope["query_string"]))
        if isinstance(result, AsyncIterator):
            return Stream(self._events(result), lambda: close(result))
        return self._dump(self._result, result)

    async def _events(self, pieces: AsyncIterator[Any]) -> AsyncIterator[bytes]:
        adapter = self._piece
        async for piece in pieces:
            yield event_of(self._dump(adapter, piece))

    def _dump(self, adapter: Any, value: Any) -> bytes:
        try:
            return json_by(adapter, value)
        except Exception as error:
            definition = self.method.definition
            raise InternalError(
                f"the provider's reply to {definition.api}.{definition.name} is not what the API says it is"
            ) from error
