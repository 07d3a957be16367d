"""The settings of the HTTP server, and its limits: the key `server` of a run config."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llamastack_server.hosts import ANY, NULL_ORIGIN, host_pattern, origin_pattern


def _checked_host(text: str) -> str:
    host_pattern(text)
    return text


def _checked_origin(text: str) -> str:
    if text not in (ANY, NULL_ORIGIN):
        origin_pattern(text)
    return text


_Host = Annotated[str, AfterValidator(_checked_host)]
_Origin = Annotated[str, AfterValidator(_checked_origin)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ServerConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8321, ge=0, le=65535, description="TCP port; 0 uses a free port")
    workers: int = Field(1, ge=1, description="Processes that serve together; a good value is the number of cores")
    start_wait_s: _Seconds | None = Field(
        1.25,
        description="Seconds that `llamastack run` waits for providers before it accepts requests; those that need "
        "longer are shown as `starting`. null: as long as they need",
    )
    worker_timeout_s: _Seconds | None = Field(
        30.0, description="Seconds after which a worker whose event loop is blocked is replaced; 0 or null: never"
    )
    allowed_hosts: list[_Host] = Field(
        default_factory=list,
        description="Names that the header `Host` may have in addition to those of this machine; `*` for every "
        "name. If empty, a server that other machines can reach allows every name",
    )
    allowed_origins: list[_Origin] = Field(
        default_factory=list,
        description="Origins whose pages may call the server from a browser, such as https://app.example.com, "
        "http://localhost:*, chrome-extension://ID, `null`, or `*` for every origin; none by default",
    )
    max_body_bytes: int = Field(32 * 2**20, gt=0, description="Largest request body, in bytes")
    max_body_elements: int = Field(
        25_000,
        gt=0,
        description="Most strings, field names, objects and lists in a JSON body; two numbers count as one, "
        "twenty in `/v1`. A body over the limit is refused before it is parsed",
    )
    max_buffered_bytes: int = Field(
        256 * 2**20,
        gt=0,
        description="Most bytes of the bodies of all running requests together, in each process; an eighth "
        "is reserved for bodies of up to 64 KiB",
    )
    max_upload_bytes: int = Field(
        512 * 2**20,
        gt=0,
        description="Largest multipart form, in bytes. Its files are on disk while the request runs; its "
        "other fields may have 1 MiB together",
    )
    max_spooled_bytes: int = Field(
        4 * 2**30, gt=0, description="Most bytes of the forms of all running requests together, in each process"
    )
    max_upload_parts: int = Field(100, gt=0, description="Most files, and most other fields, in a multipart form")
    max_head_bytes: int = Field(
        64 * 2**10, gt=0, description="Largest head of a request (request line and headers), in bytes"
    )
    head_timeout_s: _Seconds | None = Field(
        30.0, description="Seconds that a client has to send the head of a request; 0 or null: no limit"
    )
    body_timeout_s: _Seconds | None = Field(
        30.0,
        description="Seconds that a client may send nothing of a body, or less than 100 bytes per second; 0 or "
        "null: no limit",
    )
    idle_timeout_s: _Seconds | None = Field(
        75.0, description="Seconds that a connection stays open without a request; 0 or null: no limit"
    )
    unread_timeout_s: _Seconds | None = Field(
        60.0,
        description="Seconds that a client may read nothing of a waiting reply, or less than 100 bytes per "
        "second; 0 or null: no limit",
    )
    drain_timeout_s: float = Field(
        30.0, ge=0, description="Seconds that running requests have to finish when the server stops"
    )
