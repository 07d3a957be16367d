"""The default sampling of a model: as its config or its GGUF file says, else greedy."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Keys of GGUF's metadata -> fields of a request. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
_KEYS = {
    b"general.sampling.temp": "temperature",
    b"general.sampling.top_p": "top_p",
    b"general.sampling.top_k": "top_k",
    b"general.sampling.min_p": "min_p",
}
_FORMS = {4: "<I", 5: "<i", 6: "<f", 10: "<Q", 11: "<q", 12: "<d"}
"""Formats of numbers, by the type after the key."""
_HEAD = 2**22
OWN_FIELDS = frozenset({
    "chat_template_kwargs", "dry_allowed_length", "dry_base", "dry_multiplier", "dry_penalty_last_n",
    "dry_sequence_breakers", "dynatemp_exponent", "dynatemp_range", "grammar", "ignore_eos", "min_keep", "mirostat",
    "mirostat_eta", "mirostat_tau", "n_keep", "repeat_last_n", "repeat_penalty", "samplers", "t_max_predict_ms",
    "top_n_sigma", "typical_p", "xtc_probability", "xtc_threshold",
})  # fmt: skip
"""Fields of a request that only llama.cpp has, without those that choose a slot or change the form of the reply:
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""
_LAST_SEED = 2**32 - 1


def defaults_of_file(path: Path) -> dict[str, Any]:
    """The sampling defaults in the metadata at the beginning of a GGUF file."""
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


def sampled(body: dict[str, Any], fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request with the missing sampling fields added.

    fields: the request in OpenAI's form. defaults: the model's own.
    """
    if body.get("seed") == _LAST_SEED:  # which llama.cpp takes for a random one
        body = {**body, "seed": 0}
    if "temperature" in fields:
        return body
    if "top_p" not in fields and "top_k" not in fields:
        # With llama.cpp's own defaults, a small model talks nonsense.
        return {"temperature": 0.0, **defaults, **body}
    if "temperature" in defaults:
        return {"temperature": defaults["temperature"], **body}
    return body
