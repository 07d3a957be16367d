"""The native surface: one endpoint per web method of the stack's APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from pydantic import ValidationError

from llamastack.api.definition import BodyKind, MethodDefinition, ReplyKind
from llamastack.api.files import OCTETS, File
from llamastack.http import sse
from llamastack.provider.api_handle import ApiMethod
from llamastack.provider.errors import InternalError, InvalidRequestError
from llamastack.provider.routes import Receive, Scope, Send
from llamastack.provider.streams import Stream, close
from llamastack.provider.validation import invalid_request
from llamastack_server.encoding import json_by
from llamastack_server.endpoint import EVENT_STREAM, Endpoint, Reply
from llamastack_server.errors import NATIVE_ERRORS
from llamastack_server.requests import add_once, bad_request, json_object
from llamastack_server.sender import JSON, NO_BODY_STATUS, Sender

if TYPE_CHECKING:
    from llamastack_server.multipart_forms import FormReader

_MOST_PARAMETERS = 1000
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")


def native_endpoint(method: ApiMethod) -> NativeEndpoint:
    """The endpoint of a method."""
    kind = _body_kind(method.definition)
    if kind is BodyKind.FORM:
        from llamastack_server.multipart_forms import FormReader  # which few servers need

        return FormEndpoint(method, FormReader(method.definition))
    return NativeEndpoint(method)


def _body_kind(method: MethodDefinition) -> BodyKind:
    kinds = {method.body_kind(verb) for verb in method.web.methods} - {BodyKind.NONE}
    return kinds.pop() if kinds else BodyKind.JSON  # a body that nobody needs is read as JSON


def read_arguments(
    method: ApiMethod, body: bytes, query: bytes, elsewhere: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The arguments that a request gives, from its body and its query.

    elsewhere: those of the path or of a form. Raises InvalidRequestError naming the path of the first fault.
    """
    definition = method.definition
    model = definition.request_model
    whole = definition.bytes_parameter
    if not query and not elsewhere and whole is None:
        try:
            return model.model_validate_json(body or b"{}").given_arguments()
        except ValidationError as error:
            raise bad_request(error, model, body) from None
    given: dict[str, Any] = {}
    if whole is not None:
        if body or model.model_fields[whole].is_required():
            given[whole] = body
    elif body:
        given.update(json_object(body))
    add_once(given, elsewhere or {})
    add_once(given, _parameters_of(definition, query))
    try:
        return model.model_validate(given).given_arguments()
    except ValidationError as error:
        raise invalid_request(error, model, given) from None


def _parameters_of(method: MethodDefinition, query: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise InvalidRequestError(f"the query has more than {_MOST_PARAMETERS} parameters") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in method.list_parameters:
            found.setdefault(name, []).append(value)
        else:
            add_once(found, {name: value})
    return found


class NativeEndpoint(Endpoint):
    """One method of one API."""

    # Its unions try a list of numbers, which nothing here takes, as one thing after the other.
    numbers_in_one = 2

    def __init__(self, method: ApiMethod) -> None:
        super().__init__(NATIVE_ERRORS)
        self.method = method
        self._web = method.definition.web
        self._result = method.definition.result if method.definition.reply_kind is ReplyKind.JSON else None
        self._piece = method.definition.piece
        self.sends_bytes = method.definition.reply_kind is not ReplyKind.JSON
        self.reads_json = method.definition.bytes_parameter is None

    async def respond(self, scope: Scope, body: bytes) -> bytes | AsyncIterator[bytes] | Reply:
        elsewhere = scope.get("path_params")
        result = await self.method.dispatch(read_arguments(self.method, body, scope["query_string"], elsewhere))
        if self._result is None:
            return self._reply_of_bytes(result)
        if isinstance(result, AsyncIterator):
            events = Stream(self._events(result), lambda: close(result))
            return events if self._web.status == 200 else Reply(self._web.status, EVENT_STREAM, events)
        written = self._dump(self._result, result)
        if self._web.status == 200:
            return written
        if self._web.status in NO_BODY_STATUS:
            return Reply(self._web.status, [], b"")
        return Reply(self._web.status, [JSON, _length(len(written))], written)

    async def _events(self, pieces: AsyncIterator[Any]) -> AsyncIterator[bytes]:
        adapter, field = self._piece, self._web.event_field
        async for piece in pieces:
            data = self._dump(adapter, piece)
            if field is None:
                yield sse.encode(data)
            else:
                name = getattr(piece, field)
                yield sse.encode(data, str(getattr(name, "value", name)))

    def _dump(self, adapter: Any, value: Any) -> bytes:
        try:
            return json_by(adapter, value)
        except Exception as error:
            raise self._odd_reply() from error

    def _odd_reply(self) -> InternalError:
        definition = self.method.definition
        return InternalError(
            f"the provider's reply to {definition.api}.{definition.name} is not what the API says it is"
        )

    # ---- bytes -------------------------------------------------------------------------------------------------------

    def _reply_of_bytes(self, result: object) -> Reply:
        headers = [(b"content-type", (self._web.media_type or OCTETS).encode()), _NO_SNIFFING]
        kind = self.method.definition.reply_kind
        if kind is ReplyKind.BYTES and isinstance(result, bytes):
            return Reply(self._web.status, [*headers, _length(len(result))], result)
        if kind is ReplyKind.BYTE_STREAM and isinstance(result, AsyncIterator):
            return Reply(self._web.status, headers, Stream(self._blocks(result, None), lambda: close(result)))
        if kind is ReplyKind.FILE and isinstance(result, File):
            headers = [(b"content-type", result.media_type.encode()), _NO_SNIFFING, _disposition(result.filename)]
            if result.size is not None:
                headers.append(_length(result.size))
            blocks = self._blocks(result.__aiter__(), result.size)
            return Reply(self._web.status, headers, Stream(blocks, result.aclose))
        raise self._odd_reply()

    async def _blocks(self, blocks: AsyncIterator[Any], size: int | None) -> AsyncIterator[bytes]:
        """The same blocks. Raises InternalError for what is no bytes, and where there are not `size` of them."""
        sent = 0
        async for block in blocks:
            sent += len(block) if isinstance(block, bytes) else -1
            if not isinstance(block, bytes) or (size is not None and sent > size):
                raise self._odd_reply()
            if block:
                yield block
        if size is not None and sent != size:
            raise self._odd_reply()


class FormEndpoint(NativeEndpoint):
    """A method that takes files: the body is a multipart form."""

    def __init__(self, method: ApiMethod, forms: FormReader) -> None:
        super().__init__(method)
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._forms.read(scope, receive) as given:
            add_once(given, scope.get("path_params") or {})
            scope["path_params"] = given
            await self.serve(scope, b"", receive, Sender.around(send))


def _length(size: int) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % size)


def _disposition(filename: str | None) -> tuple[bytes, bytes]:
    """A download under this name (RFC 6266); a browser never shows it as a page of this server."""
    name = b"" if filename is None else b"; filename*=UTF-8''" + quote(filename, safe="").encode()
    return (b"content-disposition", b"attachment" + name)
