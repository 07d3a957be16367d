"""The lines of a body that comes in blocks, such as NDJSON."""

from __future__ import annotations

from llamastack.http.sse import BYTE_ORDER_MARK, too_long_event


class Lines:
    """Takes the blocks of one body and gives the lines that have something in them.

    most: bytes of one line that is not complete. who: the backend, for the error.
    """

    # perf: llamastack-v1-ollama. As one object for a body it costs a third of what generators around each other cost.

    __slots__ = ("_begun", "_is_first", "_most", "_size", "_who")

    def __init__(self, most: int, who: str) -> None:
        self._most = most
        self._who = who
        self._begun: list[bytes] = []  # of the line at the end, which may come in many blocks
        self._size = 0
        self._is_first = True

    def add(self, block: bytes) -> list[bytes]:
        """The lines that end in this block. Only LF and CR LF end one, not what else Unicode has for that.

        Raises BackendError for one that is too long.
        """
        *lines, rest = block.split(b"\n")
        if lines:
            lines[0] = self._taken(lines[0])
        self._begun.append(rest)
        self._size += len(rest)
        if self._size > self._most:
            raise too_long_event(self._most, self._who)
        return [line for line in lines if line and not line.isspace()]

    def end(self) -> list[bytes]:
        """The last line, where nothing ends it."""
        line = self._taken(b"")
        return [line] if line.strip() else []

    def _taken(self, rest: bytes) -> bytes:
        line = b"".join((*self._begun, rest))
        self._begun, self._size = [], 0
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        return line
