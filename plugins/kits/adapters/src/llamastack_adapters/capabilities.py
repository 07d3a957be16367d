"""What an adapter of an inference service mostly can do; it imports no HTTP, as specs must be cheap."""

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
    """The capabilities of a service that does all of the inference API, and has its models without being told.

    differences: those that are otherwise, by name, in the words of `Capabilities`.
    Raises ValueError for a name that the inference API does not have.
    """
    unknown = sorted(differences.keys() - _USUAL.keys())
    if unknown:
        raise ValueError(f"no capability of the inference API: {', '.join(unknown)}")
    return Capabilities(**{**_USUAL, **differences})
