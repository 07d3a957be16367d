"""The contenders: how each is started in front of a backend, and where it takes chat completions."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import litellm_venv
from installed_fakes import install
from payloads import (
    ALIAS,
    DONE,
    EVENTS,
    FIRST_WORD,
    LAST_WORD,
    MODEL,
    PROVIDER_ID,
    large_openai_request,
    native_request,
    openai_request,
)
from servers import HOST, Launch, Request

_HERE = Path(__file__).parent
_BARE = _HERE / "bare"
_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/sbin"])

NGINX = shutil.which("nginx", path=_SYSTEM_PATH)
NODE = shutil.which("node")
NGINX_MISSING = "not installed (apt-get install nginx-light)"


@dataclass(frozen=True)
class Surface:
    """One row of the table: a path of a contender, and the requests that it takes.

    stream: None where streams are not measured.
    beside: name of the row of the bare aiohttp app that it is compared with.
    """

    name: str
    title: str
    chat: Request
    stream: Request | None = None
    beside: str = "bare-aiohttp"


@dataclass(frozen=True)
class Contender:
    """A server between the loader and the backend."""

    surfaces: tuple[Surface, ...]
    launch: Callable[[str, int, Path], Launch] | None
    """From the backend's URL, its own port and a folder for its files; none for the backend itself."""
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot be measured here; it installs what it can."""


def _openai(name: str, title: str) -> Surface:
    path = "/v1/chat/completions"
    return Surface(
        name,
        title,
        Request("POST", path, openai_request(stream=False), (FIRST_WORD, LAST_WORD)),
        Request("POST", path, openai_request(stream=True), (FIRST_WORD, LAST_WORD, DONE), EVENTS),
    )


def _chat(name: str, title: str, body: bytes, beside: str = "bare-aiohttp") -> Surface:
    request = Request("POST", "/v1/chat/completions", body, (FIRST_WORD, LAST_WORD))
    return Surface(name, title, request, beside=beside)


def _native(name: str, title: str) -> Surface:
    path = "/inference/chat_completion"
    return Surface(
        name,
        title,
        Request("POST", path, native_request(stream=False), (FIRST_WORD, LAST_WORD)),
        Request("POST", path, native_request(stream=True), (FIRST_WORD, LAST_WORD), EVENTS),
    )


def _with(surface: Surface, name: str, value: str) -> Surface:
    def more(request: Request) -> Request:
        return replace(request, headers=(*request.headers, (name, value)))

    return replace(surface, chat=more(surface.chat), stream=more(surface.stream) if surface.stream else None)


DIRECT = _openai("direct", "backend directly")
NGINX_PROXY = _openai("nginx", "nginx proxy")
LITELLM = _with(_openai("litellm", f"litellm {litellm_venv.VERSION}"), "Authorization", f"Bearer {litellm_venv.KEY}")
BARE_HTTPX = _openai("bare-httpx", "bare Starlette + httpx")
BARE_AIOHTTP = _openai("bare-aiohttp", "bare Starlette + aiohttp")
BARE_LARGE = _chat(
    "bare-aiohttp-1mb", "bare Starlette + aiohttp, body of 1 MiB", large_openai_request(), "bare-aiohttp-1mb"
)
# With all that a request of llamastack may have: data for its provider, and a plugin that is told when it is done.
_DATA = ("X-LlamaStack-ProviderData", '{"openai_api_key": "a-key-of-the-client"}')
LLAMASTACK = _with(_openai("llamastack-v1", "llamastack `/v1/chat/completions`"), *_DATA)
_BY_ID = f"{PROVIDER_ID}/{MODEL}"
LLAMASTACK_BY_ID = _with(
    _chat("llamastack-v1-id", "the same, model `provider_id/model`", openai_request(model=_BY_ID)), *_DATA
)
LLAMASTACK_BY_ALIAS = _with(_chat("llamastack-v1-alias", "the same, by an alias", openai_request(model=ALIAS)), *_DATA)
LLAMASTACK_LARGE = _with(
    _chat("llamastack-v1-1mb", "the same, body of 1 MiB", large_openai_request(), BARE_LARGE.name), *_DATA
)
LLAMASTACK_LARGE_BY_ID = _with(
    _chat(
        "llamastack-v1-1mb-id",
        "the same, body of 1 MiB, model `provider_id/model`",
        large_openai_request(_BY_ID),
        BARE_LARGE.name,
    ),
    *_DATA,
)
LLAMASTACK_OLLAMA = _chat("llamastack-v1-ollama", "llamastack `/v1` over an Ollama stand-in", openai_request())
# With plugins that know who asks, decide about each call and follow it.
_KEY = ("Authorization", "Bearer a-key-of-the-bench")
HOOKS = _with(
    _chat(
        "llamastack-v1-hooks",
        "llamastack `/v1/chat/completions` with access and call events",
        openai_request(stream=False),
    ),
    *_DATA,
)
HOOKS_BY_ID = _with(
    _chat(
        "llamastack-v1-hooks-id", "with access and call events, model `provider_id/model`", openai_request(model=_BY_ID)
    ),
    *_DATA,
)
HOOKS_BY_ALIAS = _with(
    _chat("llamastack-v1-hooks-alias", "with access and call events, by an alias", openai_request(model=ALIAS)), *_DATA
)
LLAMASTACK_HOOKS = tuple(_with(surface, *_KEY) for surface in (HOOKS, HOOKS_BY_ID, HOOKS_BY_ALIAS))
# What a stack that traces itself costs, each trace kept.
LLAMASTACK_SQLITE = _with(_openai("llamastack-v1-sqlite", "the same, every trace in a SQLite file"), *_DATA)
LLAMASTACK_METRICS = _with(_openai("llamastack-v1-metrics", "the same, with Prometheus metrics"), *_DATA)
LLAMASTACK_OTLP = _with(_openai("llamastack-v1-otlp", "the same, every trace to a collector by OTLP"), *_DATA)
LLAMASTACK_NATIVE = _with(_native("llamastack-native", "llamastack `/inference/chat_completion`"), *_DATA)


def _bare(module: str) -> Callable[[str, int, Path], Launch]:
    def launch(backend: str, port: int, folder: Path) -> Launch:
        command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--app-dir", str(_BARE)]
        command += ["--host", HOST, "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
        command += ["--no-access-log", "--log-level", "warning"]
        return Launch(command, BARE_AIOHTTP.chat, {"BENCH_BACKEND": backend})

    return launch


def _nginx_proxy(backend: str, port: int, folder: Path) -> Launch:
    upstream = backend.removeprefix("http://")
    config = nginx_config(
        folder,
        f"upstream backend {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}",
        f"server {{ listen {HOST}:{port} backlog=2048; location / {{ proxy_pass http://backend; "
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } }',
    )
    return Launch(nginx_command(config), NGINX_PROXY.chat)


def _llamastack(backend: str, port: int, folder: Path) -> Launch:
    return _stack("remote::openai", _openai_config(backend), port, folder)


def _openai_config(backend: str) -> str:
    return f'url: "{backend}/v1", api_key: unused, models: {{{ALIAS}: {MODEL}}}'


def _llamastack_with_hooks(backend: str, port: int, folder: Path) -> Launch:
    return _stack("remote::openai", _openai_config(backend), port, folder, "doorkeeper", "llamastack.required_plugins")


def _traced_in_sqlite(backend: str, port: int, folder: Path) -> Launch:
    telemetry = "  telemetry:\n  - {provider_id: traces, provider_type: meta-reference}\n"
    return _stack("remote::openai", _openai_config(backend), port, folder, providers=telemetry)


def _with_metrics(backend: str, port: int, folder: Path) -> Launch:
    return _stack("remote::openai", _openai_config(backend), port, folder, metrics=True)


def _traced_by_otlp(backend: str, port: int, folder: Path) -> Launch:
    # The backend is the collector, too: a process of its own that reads the spans and discards them.
    collector = f'provider_type: "remote::opentelemetry", config: {{endpoint: "{backend}/v1/traces"}}'
    telemetry = f"  telemetry: [{{provider_id: collector, {collector}}}]\n"
    return _stack("remote::openai", _openai_config(backend), port, folder, providers=telemetry)


def _over_ollama(backend: str, port: int, folder: Path) -> Launch:
    return _stack("remote::ollama", f'url: "{backend}"', port, folder)


def _stack(
    provider_type: str,
    provider: str,
    port: int,
    folder: Path,
    plugin: str = "listener",
    group: str = "llamastack.plugins",
    providers: str = "",
    metrics: bool = False,
) -> Launch:
    plugins = folder / "plugins"
    if not plugins.exists():
        install(plugins, f"bench-{plugin}", {group: {plugin: plugin}})
        shutil.copy(_HERE / f"{plugin}.py", plugins)
    config = folder / "run.yaml"
    config.write_text(
        "providers:\n"
        "  inference:\n"
        f"  - provider_id: {PROVIDER_ID}\n"
        f"    provider_type: {provider_type}\n"
        f"    config: {{{provider}}}\n"
        f"{providers}"
        "store: {type: memory}\n"
        f"metrics: {{enabled: {str(metrics).lower()}}}\n"
        f"server: {{host: {HOST}, port: {port}}}\n"
    )
    command = str(Path(sys.executable).with_name("llamastack"))
    return Launch([command, "run", str(config)], Request("GET", "/health"), {"PYTHONPATH": str(plugins)})


def _litellm(backend: str, port: int, folder: Path) -> Launch:
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n"
        f"- model_name: {MODEL}\n"
        f'  litellm_params: {{model: openai/{MODEL}, api_base: "{backend}/v1", api_key: unused}}\n'
        "general_settings: {disable_spend_logs: true}\n"
    )
    command = [str(litellm_venv.command()), "--config", str(config), "--host", HOST, "--port", str(port)]
    command += ["--num_workers", "1", "--telemetry", "False"]
    # Its list of prices is otherwise fetched at each start.
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": litellm_venv.KEY}
    return Launch(command, Request("GET", "/health/readiness"), env, timeout_s=120)


def nginx_command(config: Path) -> list[str]:
    """The command of an nginx in the foreground."""
    assert NGINX is not None
    return [NGINX, "-c", str(config), "-p", str(config.parent)]


def nginx_config(folder: Path, *http: str) -> Path:
    """Write the config of an nginx of one worker that logs nothing and keeps connections, and return its path."""
    temporary = [f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    lines = [
        "daemon off;",
        "worker_processes 1;",
        f"pid {folder}/nginx.pid;",
        "error_log stderr error;",
        "events { worker_connections 8192; }",
        "http {",
        "access_log off;",
        "keepalive_requests 1000000000;",
        "client_body_buffer_size 2m;",
        "client_max_body_size 4m;",
        *temporary,
        *http,
        "}",
    ]
    path = folder / "nginx.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


CONTENDERS = (
    Contender((DIRECT,), None),
    Contender((NGINX_PROXY,), _nginx_proxy, lambda: None if NGINX else NGINX_MISSING),
    Contender((LITELLM,), _litellm, litellm_venv.install),
    Contender((BARE_HTTPX,), _bare("over_httpx")),
    # Beside each other, so that what else happens on the machine hits the two alike.
    Contender((BARE_AIOHTTP, BARE_LARGE), _bare("over_aiohttp")),
    Contender(
        (
            LLAMASTACK,
            LLAMASTACK_BY_ID,
            LLAMASTACK_BY_ALIAS,
            LLAMASTACK_LARGE,
            LLAMASTACK_LARGE_BY_ID,
            LLAMASTACK_NATIVE,
        ),
        _llamastack,
    ),
    Contender((LLAMASTACK_SQLITE,), _traced_in_sqlite),
    Contender((LLAMASTACK_METRICS,), _with_metrics),
    Contender((LLAMASTACK_OTLP,), _traced_by_otlp),
    Contender(LLAMASTACK_HOOKS, _llamastack_with_hooks),
    Contender((LLAMASTACK_OLLAMA,), _over_ollama, lambda: None if NGINX else NGINX_MISSING),
)
SURFACES = tuple(surface for contender in CONTENDERS for surface in contender.surfaces)
