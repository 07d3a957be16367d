"""The backends behind all contenders: they answer from prepared bytes, faster than anything before them asks."""

from __future__ import annotations

import json
from pathlib import Path

import contenders
from payloads import chat_reply, models_reply, ollama_models_reply, ollama_reply, stream_events
from servers import HOST, Launch, Request, Server, ServerError, ask, free_port

_SCRIPT = Path(__file__).with_name("backend.mjs")
_MODELS = Request("GET", "/v1/models")


def node_backend(folder: Path) -> Server:
    """Streams and plain replies, by node; not started yet. Raises ServerError where node is not installed."""
    if contenders.NODE is None:
        raise ServerError("node is not installed; the backend of streams is written for it")
    replies = folder / "replies.json"
    replies.write_text(json.dumps({"models": models_reply(), "chat": chat_reply(), "events": stream_events()}))
    port = free_port()
    command = [contenders.NODE, str(_SCRIPT), str(port), str(replies)]
    return Server(Launch(command, _MODELS), port, folder / "node.log")


def nginx_backend(folder: Path) -> Server:
    """Plain replies, by nginx, which leaves more of the shared cores to the rest; not started yet."""
    port = free_port()
    config = contenders.nginx_config(
        folder,
        "default_type application/json;",
        f"server {{ listen {HOST}:{port} backlog=2048;",
        f"location = /v1/models {{ return 200 '{models_reply()}'; }}",
        f"location = /v1/chat/completions {{ return 200 '{chat_reply()}'; }}",
        f"location = /api/tags {{ return 200 '{ollama_models_reply()}'; }}",
        "location = /v1/traces { return 200; }",
        "location = /api/ps { return 200 '{\"models\":[]}'; }",
        'location = /api/show { return 200 \'{"capabilities":["completion","tools"]}\'; }',
        f"location = /api/chat {{ default_type application/x-ndjson; return 200 '{ollama_reply()}'; }} }}",
    )
    return Server(Launch(contenders.nginx_command(config), _MODELS), port, folder / "log")


def set_streams(backend: Server, shape: str) -> None:
    """How the streams of the node backend go from now on: `fast`, `mixed`, `paced` or `idle`; see backend.mjs."""
    ask(backend.port, Request("PUT", f"/streams/{shape}"))


def open_idle_streams(backend: Server) -> int:
    """How many `idle` streams of the node backend nobody has closed."""
    found: dict[str, int] = json.loads(ask(backend.port, Request("GET", "/streams")))
    return found["idle"]
