"""Sends the messages of one response."""

from __future__ import annotations

from starlette.types import Message, Send

from llamastack_server.request_cycle import Cycle

NO_BODY_STATUS = (204, 205)
"""Replies with one of these have no body."""
JSON = (b"content-type", b"application/json")


class Sender:
    """Sends the messages of one response.

    header: added to its head; of valid characters.
    status: of the response; 0 until its head is sent. complete: whether its last byte is.
    """

    __slots__ = ("_header", "_send", "complete", "status")

    def __init__(self, send: Send, header: tuple[bytes, bytes] | None = None) -> None:
        self._send = send
        self._header = header
        self.status = 0
        self.complete = False

    @classmethod
    def around(cls, send: Send) -> Sender:
        """`send` itself where it is a Sender, and else one around it, such as around what middleware passes on."""
        return send if isinstance(send, Sender) else cls(send)

    def give_up(self, status: int) -> None:
        """The client is gone: `status` is what the log has."""
        self.status = status

    async def whole(self, content: bytes) -> None:
        """Send a reply that is JSON, with status 200."""
        cycle = getattr(self._send, "__self__", None)
        # perf: llamastack-v1. As two messages, with all headers looked through, it takes three times as long.
        if self._header is not None and isinstance(cycle, Cycle) and cycle.can_reply:
            self.status, self.complete = 200, True
            cycle.reply(b"%b: %b\r\n" % self._header, content)
            return
        headers = [JSON, (b"content-length", b"%d" % len(content))]
        await self({"type": "http.response.start", "status": 200, "headers": headers})
        await self({"type": "http.response.body", "body": content})

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._header is not None:
                message["headers"].append(self._header)
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)
