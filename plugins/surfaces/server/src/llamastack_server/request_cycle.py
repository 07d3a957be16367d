"""A request and its reply on one of our connections, in fewer steps than uvicorn's messages take."""

from __future__ import annotations

from starlette.types import Receive
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_HEAD = b"HTTP/1.1 200 OK\r\n%b%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
_CLOSE = b"connection: close\r\n"


class Cycle(RequestResponseCycle):
    """uvicorn's, which also gives a body and takes a reply that are whole."""

    @property
    def can_reply(self) -> bool:
        """Whether `reply` can be called: nothing is sent yet, and the client takes what is."""
        return not (self.response_started or self.disconnected or self.flow.write_paused) and (
            self.scope["method"] != "HEAD"
        )

    def reply(self, head: bytes, content: bytes) -> None:
        """Send JSON with status 200, and with these lines of its head beside the usual ones."""
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = self.chunked_encoding = False
        usual = b"".join(b"%b: %b\r\n" % header for header in self.default_headers)
        self.transport.write(_HEAD % (usual, head, len(content), b"" if self.keep_alive else _CLOSE))
        self.transport.write(content)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def taken_body(self) -> bytes | None:
        """The body if all of it has arrived; None if not."""
        if self.more_body or self.disconnected or self.response_complete or self.waiting_for_100_continue:
            return None
        self.flow.resume_reading()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return body


def body_at_hand(receive: Receive) -> bytes | None:
    """The whole body of a request of one of our connections, where it is here already."""
    cycle = getattr(receive, "__self__", None)
    # perf: llamastack-v1. A small body comes with its head, and needs no message.
    return cycle.taken_body() if isinstance(cycle, Cycle) else None
