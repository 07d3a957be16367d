"""What all requests of one process share."""

from __future__ import annotations

from llamastack_server.bodies import Bodies
from llamastack_server.settings import ServerConfig
from llamastack_server.stream_fairness import StreamTurns


class ProcessLimits:
    """bodies: reads them, and knows how much of them is held. turns: of streams that always have more.
    max_body_elements: of a JSON body. uploads: counts what of forms is kept on disk. max_upload_parts: of a form.
    """

    def __init__(self, settings: ServerConfig) -> None:
        self.bodies = Bodies(settings.max_body_bytes, settings.max_buffered_bytes)
        self.turns = StreamTurns()
        self.max_body_elements = settings.max_body_elements
        self.uploads = Bodies(
            settings.max_upload_bytes, settings.max_spooled_bytes, ("max_upload_bytes", "max_spooled_bytes")
        )
        self.max_upload_parts = settings.max_upload_parts
