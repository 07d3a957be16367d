"""The usual capabilities of an adapter. This module imports no HTTP client, because specs must load fast."""

from __future__ import annotations

from llamastack.provider import Capabilities

_USUAL = {
    "chat_completion": "supported",
    "completion": "supported",
    "embeddings": "supported",
    "images": "supported",
    "json_schema": "supported",
    "logprobs": "supported",
    "registration": "unsupported",
    "streaming": "supported",
    "tools": "supported",
    "unregister": "unsupported",
}


def inference_capabilities(**differences: str) -> Capabilities:
    """The capabilities of a service that implements all of the inference API and knows its models without registration.

    differences: the capabilities that differ, by name, with the values of `Capabilities`.
    Raises ValueError for a name that is no capability of the inference API.
    """
    unknown = sorted(differences.keys() - _USUAL.keys())
    if unknown:
        raise ValueError(f"no capability of the inference API: {', '.join(unknown)}")
    return Capabilities(**{**_USUAL, **differences})
