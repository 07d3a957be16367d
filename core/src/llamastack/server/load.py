"""What all requests of one process share."""

from __future__ import annotations

from llamastack.server.bodies import Bodies
from llamastack.server.turns import Turns
from llamastack.stack.server_config import ServerConfig


class Load:
    """bodies: reads them, and knows how much of them is held. turns: of streams that always have more.
    max_body_elements: of a JSON body.
    """

    def __init__(self, settings: ServerConfig) -> None:
        self.bodies = Bodies(settings.max_body_bytes, settings.max_buffered_bytes)
        self.turns = Turns()
        self.max_body_elements = settings.max_body_elements
