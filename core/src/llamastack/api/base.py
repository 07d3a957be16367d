"""The base of every type on the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from llamastack.api.fail_fast_validation import FailFast

JsonObject = dict[str, Any]
"""A JSON object whose fields are not the API's: what a provider, a tool or a user puts there."""
OMIT_IF_NONE = Field(exclude_if=lambda value: value is None)
"""Marks a field that release 0.0.41 did not have: if it is not set, the JSON does not have it."""


class WireModel(FailFast):
    """A JSON object of the API.

    Unknown fields are refused where a request is read; a client reads replies with `extra="ignore"`, so that an older
    client understands a newer server. Replies have every optional field, null where it is not set, except fields that
    are marked `OMIT_IF_NONE`.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def to_wire(self) -> JsonObject:
        """The JSON-compatible form, without the fields that are not set."""
        return self.model_dump(mode="json", exclude_none=True)


Identifier = Annotated[
    str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\s\x00-\x1f]([^\x00-\x1f]*[^\s\x00-\x1f])?$")
]
"""The name of an object: 1 to 512 characters, no control characters, no white space at either end."""


class RoutedObject(WireModel):
    """What a provider serves by name: a model, a shield, a memory bank."""

    identifier: Identifier
    """The name that requests use for it."""
    provider_id: str = ""
    """The configured provider that serves it; optional at registration if its API has only one provider."""

    provider_resource_id: Annotated[Identifier | None, OMIT_IF_NONE] = None
    """Makes a registration an alias: the name, at the same provider, of the object that calls are sent to."""
    unavailable_reason: Annotated[str | None, OMIT_IF_NONE] = None
    """Set by the stack in listings when the object is known but cannot be used now; read-only."""
