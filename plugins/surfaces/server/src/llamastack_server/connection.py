"""The connection of a request: its limits, whether the client is still there, and what has been sent."""

from __future__ import annotations

import asyncio
import contextvars
import re
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import httptools
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from llamastack.provider.context import RequestContext, use_context
from llamastack.provider.errors import LlamaStackError, RequestHeadTooLargeError
from llamastack.provider.routes import ErrorFormat
from llamastack_server.context import request_id_from
from llamastack_server.errors import NATIVE_ERRORS, last_reply
from llamastack_server.logs import log_access
from llamastack_server.output import LONGEST_TURN, Output
from llamastack_server.request_cycle import Cycle
from llamastack_server.settings import ServerConfig

_EXTENSION = "llamastack.connection"
# Bytes of a chunked body beside its content, for each byte of that: a chunk of one byte has five more.
_FRAMING_PER_BYTE = 8
# Requests that wait for the reply to the one before them.
_MOST_QUEUED = 1000
_LONGEST_SHOWN = 200  # characters
_NO_HTTP = "Invalid HTTP request received."
_UPGRADING = (b"upgrade", b"http2-settings")
_PLAIN_TARGET = re.compile(rb"/[A-Za-z0-9_./:-]*")
_ABSOLUTE_TARGET = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


def _nothing() -> None:
    """A response is complete."""


class _Flow(FlowControl):
    """Pauses reading while requests wait for the reply to an earlier request."""

    def __init__(self, transport: asyncio.Transport, queue: deque[Any]) -> None:
        super().__init__(transport)
        self._queue = queue

    def resume_reading(self) -> None:
        if self.read_paused and not self._queue:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """uvicorn's, with fewer calls of the system, and which tells apps that the client has gone: one need not have a
    task that waits for it, which costs a seventh of a request that is merely forwarded.

    It counts bytes, for the limits; `slow_clients` looks at them now and then, so that a request needs no timer.

    format_for: how errors look for a path.
    """

    when_lost: set[Callable[[], None]]
    """Called when the connection is lost; those of requests in work."""
    lost: bool = False
    fault: LlamaStackError | None = None
    """What ended the wait for a body."""
    refused: bool = False
    """Whether further input is ignored: the refusal was sent, and the connection will be closed."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        settings: ServerConfig | None = None,
        format_for: Callable[[str], ErrorFormat] = lambda path: NATIVE_ERRORS,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._max_head_bytes = (settings or ServerConfig()).max_head_bytes
        self._format_for = format_for
        self.url = b""
        self.requests = 0
        """How many heads came whole."""
        self.in_head = True
        """Whether what comes next is the head of a request, not the body of one."""
        self.head_bytes = 0
        """Of a head that is not whole yet."""
        self.body_bytes = 0
        """Of all bodies."""
        self._framing_bytes = 0
        self._asks_upgrade = False

    @property
    def runs_on(self) -> bool:
        """Whether a stream has sent so much without a pause that others should have a turn. Where the client has gone
        nothing is written any more, and only a pause lets the stream be cancelled.
        """
        return self.lost or self._output.blocks >= LONGEST_TURN

    @property
    def taken_bytes(self) -> int:
        """What the system took of what was written."""
        return self._output.written - self.unsent_bytes

    @property
    def unsent_bytes(self) -> int:
        """Bytes that are written and that the client does not read."""
        return self.transport.get_write_buffer_size()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: self._itself}  # type: ignore[dict-item]

    def watch(self, leave: Callable[[], None]) -> None:
        """Have `leave` called when the connection is lost, until it is taken from `when_lost`. For a request whose body
        is read.
        """
        self.when_lost.add(leave)
        # After a large body uvicorn reads on only when it is asked for more, and sees no end before.
        self.flow.resume_reading()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.when_lost = set()
        self._output = Output(transport, self.loop)
        # A weak reference, because the connection holds the scope: else both stay until garbage is collected.
        self._itself = weakref.ref(self)
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._context = contextvars.copy_context()

    # ---- what comes --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.refused:
            return
        if self.in_head:
            if self.head_bytes + len(data) <= self._max_head_bytes:
                self.head_bytes += len(data)
                self._feed(data)
                return
        elif len(data) <= self._max_head_bytes:
            self._receive_body(data)
            return
        self._receive_in_pieces(memoryview(data))

    def _receive_in_pieces(self, rest: memoryview) -> None:
        """Of what may be more than one head can have: no piece is."""
        while rest and not self.refused and not self.transport.is_closing():
            room = self._max_head_bytes - (self.head_bytes if self.in_head else 0)
            piece, rest = rest[:room], rest[room:]
            if not self.in_head:
                self._receive_body(piece)
            elif not piece:
                self._refuse_head()
            else:
                self.head_bytes += len(piece)
                self._feed(piece)

    def _feed(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as asked:
                # The parser takes what follows such a head for the other protocol, a body too: it is asked once more.
                data = self._head_without_upgrade() + bytes(data[asked.args[0] :])
            except httptools.HttpParserError:
                self.logger.warning(_NO_HTTP)
                self.send_400_response(_NO_HTTP)
                return

    def _head_without_upgrade(self) -> bytes:
        """The received head, for a new parser. A request for another protocol is ignored, as a server may do.

        Source: https://www.rfc-editor.org/rfc/rfc9110#section-7.8.
        """
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(one for one in value.split(b",") if one.strip().lower() not in _UPGRADING)
            if name not in _UPGRADING:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        with suppress(AttributeError):  # as uvicorn has it
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._asks_upgrade = False
        return b"\r\n".join((*lines, b"", b""))

    def _receive_body(self, data: bytes | memoryview) -> None:
        requests, before = self.requests, self.body_bytes
        self._feed(data)
        if self.in_head or self.requests != requests:
            self._framing_bytes = 0
            return
        # What chunks say of themselves and what follows the last one is read by nobody, and kept in part.
        content = self.body_bytes - before
        self._framing_bytes = max(0, self._framing_bytes + len(data) - content - _FRAMING_PER_BYTE * content)
        if self._framing_bytes > self._max_head_bytes:
            self.refuse(
                RequestHeadTooLargeError(
                    f"the body has more than {self._max_head_bytes} bytes beside its content, in chunk extensions or "
                    "trailers (server.max_head_bytes)"
                )
            )

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._asks_upgrade = True
            return
        self.in_head, self.head_bytes = False, 0
        self.requests += 1
        if not self.url.startswith(b"/"):
            self._take_target_apart()
        self._begin_cycle()
        self.headers = []  # for trailers, which must not become headers
        if len(self.pipeline) > _MOST_QUEUED:
            self.logger.warning("more than %d requests on one connection wait for replies: closed", _MOST_QUEUED)
            self._close_now()

    def _begin_cycle(self) -> None:
        """As uvicorn has it, without a limit of connections, and with a cycle that writes a whole reply at once."""
        url, scope, before = self.url, self.scope, self.cycle
        version = self.parser.get_http_version()
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        # perf: llamastack-v1. Most targets are a path alone, and need no parser.
        if not _PLAIN_TARGET.fullmatch(url):
            parsed = httptools.parse_url(url)
            url = parsed.path
            scope["query_string"] = parsed.query or b""
        else:
            scope["query_string"] = b""
        path = url.decode("ascii")
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url
        self.cycle = Cycle(
            scope=scope,
            transport=self._output,  # type: ignore[arg-type]  # it has what a cycle calls
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _take_target_apart(self) -> None:
        """Split a target in absolute form. Its host counts, not that in the header.

        Source: https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2.
        """
        target = _ABSOLUTE_TARGET.fullmatch(self.url.partition(b"#")[0])
        if target is None:
            return
        authority, rest = target.groups()
        self.url = rest if rest.startswith(b"/") else b"/" + rest
        self.headers[:] = [(name, authority if name == b"host" else value) for name, value in self.headers]

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._asks_upgrade:
            return  # see `_feed`
        self.in_head, self.head_bytes = True, 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    # ---- what ends it ------------------------------------------------------------------------------------------------

    def _refuse_head(self) -> None:
        self.refuse(
            RequestHeadTooLargeError(
                f"the request line and the headers are over the limit of {self._max_head_bytes} bytes "
                "(server.max_head_bytes)"
            )
        )

    def refuse(self, error: LlamaStackError) -> None:
        """End the connection with this error: in place of an endpoint, or by the endpoint that waits for the rest of a
        body. If another request is running, the connection is closed without a reply.
        """
        self.refused = True
        self._output.set_lingers(True)
        if self.is_idle:
            self._reply(error)
            self.flow.resume_reading()
        elif self.in_head or self.pipeline:
            self._close_now()
        else:
            self.fault = error
            self.cycle.keep_alive = False
            self.cycle.message_event.set()

    def _reply(self, error: LlamaStackError) -> None:
        with use_context(RequestContext(request_id=request_id_from(None))):
            path = self.url.decode("ascii", "backslashreplace").partition("?")[0]
            shape = self._format_for(path)
            self._output.end_response()
            self.transport.write(last_reply(error, shape))
            self._output.close()
            method = self.parser.get_method().decode() if path else "-"
            log_access(method, path[:_LONGEST_SHOWN] or "-", shape.status(error), 0)

    def _close_now(self) -> None:
        self.refused = True
        self._output.set_lingers(False)
        self._output.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is running."""
        return self.cycle is None or self.cycle.response_complete

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """As uvicorn has it, but each in a context of its own. Reading that a request has begun again goes on in the
        request's context, and the next one would have what is in there, such as the keys of its provider data.
        """
        task = self.loop.create_task(cycle.run_asgi(app), context=self._context.copy())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        """As uvicorn has it, without its timer for each request."""
        self._output.end_response()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        following = self.pipeline.pop() if self.pipeline else None
        self.flow.resume_reading()
        if following is not None:
            self._start_asgi_task(*following)

    def send_400_response(self, msg: str) -> None:
        self.refused = True
        self._output.end_response()  # before what is written past it
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost = True
        for cycle, _ in self.pipeline:
            cycle.on_response = _nothing  # which holds this connection until the cycle has run, and it will not
        for call in tuple(self.when_lost):
            call()


def connection_of(scope: Scope) -> Connection | None:
    """The connection where it is one of ours; None under another server."""
    found: weakref.ref[Connection] | None = scope.get("extensions", {}).get(_EXTENSION)
    return None if found is None else found()
