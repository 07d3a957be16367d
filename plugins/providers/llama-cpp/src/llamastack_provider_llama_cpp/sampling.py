"""How a model is sampled where a request does not say it: as its config or its GGUF file says, else greedily."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamastack.api.common import SamplingParams, SamplingStrategy

# Keys of GGUF's metadata, and what a request calls them. Format:
# https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
_KEYS = {
    b"general.sampling.temp": "temperature",
    b"general.sampling.top_p": "top_p",
    b"general.sampling.top_k": "top_k",
    b"general.sampling.min_p": "min_p",
}
_FORMS = {4: "<I", 5: "<i", 6: "<f", 10: "<Q", 11: "<q", 12: "<d"}
"""Numbers, by the type that stands after the key."""
_HEAD = 2**22
_LAST_SEED = 2**32 - 1


def defaults_of_file(path: Path) -> dict[str, Any]:
    """What the metadata at the beginning of a GGUF file says of sampling."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    found: dict[str, Any] = {}
    for key, name in _KEYS.items():
        place = head.find(struct.pack("<Q", len(key)) + key)
        if place < 0:
            continue
        start = place + 8 + len(key)
        form = _FORMS.get(int.from_bytes(head[start : start + 4], "little"))
        if form is not None and start + 4 + struct.calcsize(form) <= len(head):
            [value] = struct.unpack_from(form, head, start + 4)
            found[name] = round(value, 6) if isinstance(value, float) else value
    return found


def sampled(body: dict[str, Any], params: SamplingParams | None, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request with what it does not say of sampling.

    defaults: the model's own.
    """
    if body.get("seed") == _LAST_SEED:  # which llama.cpp takes for a random one
        body = {**body, "seed": 0}
    if params is None or params.strategy is SamplingStrategy.greedy:
        return body
    if params.strategy is SamplingStrategy.top_p and not params.model_fields_set & {"temperature", "top_p"}:
        # A small model that is sampled as llama.cpp would talks nonsense.
        return {"temperature": 0.0, **defaults, **body}
    if "temperature" in defaults:
        return {"temperature": defaults["temperature"], **body}
    return body
