"""Settings that the suite cannot find out: the key `x-conformance` of the run config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

KEY = "x-conformance"
Name = Annotated[str, Field(min_length=1)]


class Settings(BaseModel):
    """All fields are optional."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chat_model: Name | None = Field(None, description="Model to generate with; the first that is listed by default")
    embedding_model: Name | None = Field(None, description="Model to embed with; `chat_model` by default")
    tool_model: Name | None = Field(None, description="Model that calls tools; `chat_model` by default")
    image_model: Name | None = Field(None, description="Model that accepts images; without one, images are not tried")
    shield: Name | None = Field(None, description="Shield to run; the first that is listed by default")
    safe: str = Field("What is the capital of France?", description="A message that the shield lets pass")
    unsafe: Name | None = Field(None, description="A message that the shield reports as a violation")
    unsafe_level: Literal["warn", "error"] = Field("error", description="The level of the violation of `unsafe`")
    unsafe_more: list[Name] = Field(
        default_factory=list,
        description="More messages that the shield reports, each for another reason: another of its words, topics or "
        "patterns than that of `unsafe`",
    )
    unsafe_any_case: bool = Field(False, description="Whether the shield reports `unsafe` in any case of its letters")
    unsafe_any_blanks: bool = Field(
        False, description="Whether the shield reports `unsafe` with line breaks or several blanks between its words"
    )
    unsafe_by_shield: dict[str, Name] = Field(
        default_factory=dict,
        description="By the name of two shields or more, which are listed or in `objects`: a message that only this "
        "shield reports",
    )
    objects: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Resources that can be registered (models, shields, memory banks) and may be lost; the suite "
        "registers and unregisters them",
    )
    examples: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Arguments of calls, by method, for an API for which no package brings a suite; those that its "
        "types allow by default",
    )
    unserved: Name = Field("no-such-object-7f3a", description="A name that the backend does not serve")
    client_data: dict[str, str] | None = Field(
        None,
        description="Provider data of a client, where `{key}` stands for the key that is sent to the backend; the "
        "first secret of the provider data by default",
    )
    lacks: list[Name] = Field(
        default_factory=list,
        description="Capabilities that this instance lacks although its type has them: one vLLM server generates or "
        "embeds, never both. Their checks are not applicable, but calls that need them must be refused",
    )
    backend_version: Name | None = Field(None, description="Version of the backend, for capabilities `since X`")
    backend_url_field: Name | None = Field(
        None,
        description="Field of the config with the backend's URL; the only URL in it by default. `none`: there is "
        "none, and faults of the connection are not tried",
    )
    short_timeouts: dict[str, Any] | None = Field(
        None,
        description="Changes to the config that make the provider give up on a silent backend after a second; every "
        "number field with `timeout` in its name is set to 1 by default",
    )
    second: dict[str, Any] = Field(
        default_factory=dict,
        description="Changes to the config for a second instance beside the first, which name another place for its "
        "data if it keeps any",
    )
    keeps_data: bool | None = Field(
        None,
        description="Whether what the provider keeps is there after a restart; by default, if its config has a URL or "
        "a place that it writes to (`x-writes`), if it keeps values in the stack's store, or if it has written files",
    )
    store_records: int = Field(
        100_000, ge=1000, description="Records that a store is asked for at once in the stress tier"
    )
    parallel_calls: int = Field(50, ge=2, le=1000, description="Concurrent calls in the stress tier")
    many_texts: int = Field(2000, ge=20, description="Most texts that one call is to embed")
    many_objects: int = Field(101, ge=3, description="Resources that are registered to see that all are listed")
    time_limit_s: float = Field(60.0, gt=0, description="Seconds that one check may take")
    max_block_ms: float = Field(100.0, gt=0, description="Milliseconds that the event loop may stand still")


def settings_of(document: Mapping[str, Any]) -> Settings:
    """The settings in a run config. Raises pydantic.ValidationError if they are wrong."""
    return Settings.model_validate(document.get(KEY) or {})
