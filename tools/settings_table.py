"""The table of all settings and limits in docs/operations.md.

Config classes give their fields, defaults and descriptions. This module adds what happens at each limit, and the limits
that are constants.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from read_source import table

from llamastack.stack.config import RunConfig
from llamastack.stack.stores.sqlite import SqliteStoreConfig
from llamastack_adapters.remote_inference import RemoteConfig
from llamastack_server.settings import ServerConfig
from llamastack_telemetry.settings import TracingConfig

# By prefix of the setting's name: the class whose fields it has, and those that are described elsewhere.
CLASSES: tuple[tuple[str, type[BaseModel], frozenset[str]], ...] = (
    ("server.", ServerConfig, frozenset()),
    ("", RunConfig, frozenset({"version", "image_name", "apis", "providers", "store", "server"})),
    ("tracing.", TracingConfig, frozenset()),
    ("store.config.", SqliteStoreConfig, frozenset()),
    ("providers.<api>[].config.", RemoteConfig, frozenset()),
)

WHEN_MET: dict[str, str] = {
    "server.port": "If the port is in use, the command ends with status 2",
    "server.workers": "Stores and providers that work in only one process are refused before anything starts",
    "server.max_body_bytes": "413",
    "server.max_body_elements": "400",
    "server.max_upload_bytes": "413",
    "server.max_spooled_bytes": "503 with `Retry-After`",
    "server.max_upload_parts": "400",
    "server.max_head_bytes": "431, and the connection is closed",
    "server.max_buffered_bytes": "503 with `Retry-After`",
    "server.head_timeout_s": "408, and the connection is closed; only closed if no byte came",
    "server.body_timeout_s": "408, and the connection is closed",
    "server.idle_timeout_s": "The connection is closed",
    "server.unread_timeout_s": "The connection is closed, and the provider's work cancelled; a line in the log",
    "server.drain_timeout_s": "503; in a stream a last error event",
    "server.allowed_hosts": "Another `Host`: 403",
    "server.allowed_origins": "Another `Origin`: 403 for methods that can write; browsers let no page read the reply",
    "server.worker_timeout_s": "The worker is ended and started again; a line in the log",
    "server.start_wait_s": "Requests are accepted; a call of what only a provider that still starts may serve is a 503",
    "on_provider_error": "`retry`: the others serve, `/health` says `DEGRADED`; `fail`: the command ends with status 1",
    "start_timeout_s": "The instance is down, and the stack tries it again",
    "refresh_interval_s": "The stack notices additions and removals at the backend",
    "tracing.max_waiting_spans": "Dropped and counted; a line in the log",
    "tracing.max_batch_spans": "The others are in the next batch",
    "tracing.interval_s": "Providers get the spans that wait",
    "tracing.export_timeout_s": "The same spans come again, after a pause",
    "tracing.max_content_bytes": "The rest is cut, with a mark",
    "tracing.max_waiting_content_bytes": "Further spans have `llamastack.content.dropped` instead of content",
    "store.config.busy_timeout_s": "503",
    "providers.<api>[].config.timeout_s": "504; in a stream a last error event",
    "providers.<api>[].config.connect_timeout_s": "503",
    "providers.<api>[].config.max_retries": "429 with `Retry-After`",
    "providers.<api>[].config.max_retry_wait_s": "429 with `Retry-After`",
    "providers.<api>[].config.max_response_bytes": "502",
    "providers.<api>[].config.max_event_bytes": "502; in a stream a last error event",
    "providers.<api>[].config.ca_file": "A certificate of an authority that is not trusted: 503",
    "providers.<api>[].config.trust_models": "A name that the backend does not have: the backend's error at the call",
}

ENVIRONMENT: tuple[tuple[str, str, str, str], ...] = (
    (
        "LLAMASTACK_HOME",
        "`~/.llamastack`",
        "Folder in which stacks without a config file of their own keep their files",
        "",
    ),
    (
        "LLAMASTACK_LOG_LEVEL",
        "`INFO`",
        "Level of the server's log, and levels of single loggers: `INFO,llamastack.access=WARNING,httpx=DEBUG`",
        "Records below it are not written",
    ),
    ("LLAMASTACK_LOG_FORMAT", "`text`", "Form of the server's log: `text`, or `json` for one object per line", ""),
    (
        "LLAMASTACK_LOG_REPEATS",
        "`5`",
        "How often the same line of the log is written within 10 seconds; 0: always",
        "Further lines are counted, and one line shows their number",
    ),
    (
        "LLAMASTACK_LOG_CALLS",
        "",
        "`1` adds a line to the access log for each call of a provider",
        "",
    ),
    ("LLAMASTACK_DISABLE_PLUGINS", "", "Distributions and entry points to switch off", "They are not loaded"),
    ("LLAMASTACK_TRACE_HOOKS", "", "`1` prints calls of hooks", ""),
    ("LLAMASTACK_URL", "`http://127.0.0.1:8321`", "The server that commands talk to", ""),
    (
        "LLAMASTACK_PROVIDER_DATA",
        "",
        "JSON object that commands send as `X-LlamaStack-ProviderData`",
        "Not a JSON object: the command ends with status 2",
    ),
    ("LLAMASTACK_API_KEY", "", "Key that commands send as `Authorization: Bearer`, to a server that wants one", ""),
    ("LLAMASTACK_DEBUG", "", "`1` shows tracebacks of failed commands", ""),
    ("LLAMASTACK_THREADS", "`2`", "CPU threads of the chat model in the run config `starter`", ""),
)

# (what, module, constant, unit or "", what happens)
FIXED: tuple[tuple[str, str, str, str, str], ...] = (
    ("A message or a traceback in the log", "llamastack_server.log_formats", "LONGEST_MESSAGE", "characters", "Cut"),
    ("A path in the access log", "llamastack_server.logs", "_LONGEST_PATH", "characters", "Cut"),
    (
        "Lines of the log that wait to be read",
        "llamastack_server.logs",
        "_MOST_WAITING",
        "lines",
        "Dropped; one line shows their number",
    ),
    (
        "A message of a backend or an exception, in errors",
        "llamastack.provider.error_translation",
        "_LONGEST_MESSAGE",
        "characters",
        "Its middle is cut out",
    ),
    (
        "Requests on one connection that wait for the reply to the one before",
        "llamastack_server.connection",
        "_MOST_QUEUED",
        "",
        "The connection is closed",
    ),
    (
        "Faults of one request that its error lists",
        "llamastack.provider.validation",
        "MOST_FAULTS",
        "",
        "The error has the number of the others",
    ),
    (
        "Answers that one translated request to `/v1` may ask for",
        "llamastack_openai_api.routes",
        "MOST_ANSWERS",
        "",
        "400",
    ),
    (
        "A body in OpenAI's form whose parameters are in the span of its call",
        "llamastack_telemetry.call_spans",
        "LONGEST_PARSED_BODY",
        "bytes",
        "The span has no parameters",
    ),
    ("Parameters in the query of a native route", "llamastack_server.native_endpoint", "_MOST_PARAMETERS", "", "400"),
    (
        "Bytes of the body of a backend's error that are read",
        "llamastack.http.answer_limits",
        "MOST_ERROR_BYTES",
        "bytes",
        "The rest is not read",
    ),
    (
        "HTML, PDF, DOCX, CSV and JSON documents that are read at once, each in a process of its own",
        "llamastack_memory_kit.documents.extraction",
        "_MOST_AT_ONCE",
        "",
        "The others wait",
    ),
    (
        "Memory of a process that reads a document",
        "llamastack_memory_kit.documents.extraction",
        "_MEMORY_BYTES",
        "bytes",
        "400",
    ),
    ("Redirects of a document's URL", "llamastack_memory_kit.documents.fetching", "_MOST_REDIRECTS", "", "400"),
)


def _default_of(field: FieldInfo) -> str:
    made: Any = field.get_default(call_default_factory=True, validated_data={})
    if made is None or made is PydanticUndefined or made in ({}, []):
        return ""
    if isinstance(made, int) and not isinstance(made, bool) and made >= 2**16 and made % 2**10 == 0:
        return f"`{made}` ({made // 2**20} MiB)" if made % 2**20 == 0 else f"`{made}` ({made // 2**10} KiB)"
    return f"`{json.dumps(made)}`"


def rows() -> Iterator[tuple[str, str, str, str]]:
    """(setting, default, what and its unit, when it is met), one for each."""
    for prefix, model, elsewhere in CLASSES:
        for name, field in model.model_fields.items():
            if name not in elsewhere:
                met = WHEN_MET.get(prefix + name, "")
                yield f"`{prefix}{name}`", _default_of(field), field.description or "", met
    yield from environment()
    for what, module, constant, unit, met in FIXED:
        value = getattr(importlib.import_module(module), constant)
        yield "(fixed)", f"{value:,} {unit}".strip(), what, met


def environment() -> Iterator[tuple[str, str, str, str]]:
    """The same for the environment variables."""
    for variable, default, what, met in ENVIRONMENT:
        yield f"`{variable}`", default, what, met


HEADERS = ("setting", "default", "what", "when it is met")
BLOCKS: dict[str, Callable[[str], str]] = {
    "settings": lambda _: table(HEADERS, rows()),
    "environment": lambda _: table(("variable", *HEADERS[1:]), environment()),
}
