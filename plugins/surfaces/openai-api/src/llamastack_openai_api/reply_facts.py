"""What replies in OpenAI's form say, for call events: their tokens, and whether a chunk holds something of the model.

Format: https://platform.openai.com/docs/api-reference/chat/object, the field `usage`, and
https://platform.openai.com/docs/api-reference/chat-streaming, the field `delta`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llamastack.provider.provider_call import Tokens

# The quotes are not escaped, so these are names of fields, not text of the model. Most backends write the two together.
_PROMPT_TOKENS = re.compile(rb'"prompt_tokens"\s*:\s*(\d+)(?:\s*,\s*"completion_tokens"\s*:\s*(\d+))?')
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
_CACHED_TOKENS = re.compile(rb'"cached_tokens"\s*:\s*(\d+)')


def tokens_of_json(reply: object) -> Tokens | None:
    """The tokens of a reply, or of events, as bytes. A search costs far less than parsing."""
    if not isinstance(reply, bytes):
        return None
    at = reply.rfind(b'"usage"')
    prompt = _PROMPT_TOKENS.search(reply, at) if at >= 0 else None
    if prompt is None:
        return None
    completion = prompt[2] or next(iter(_COMPLETION_TOKENS.findall(reply, at)), b"0")
    cached = _CACHED_TOKENS.search(reply, at)
    return (int(prompt[1]), int(completion)) if cached is None else (int(prompt[1]), int(completion), int(cached[1]))


def tokens_of_mapping(reply: object) -> Tokens | None:
    """The tokens of a reply, or of a chunk, as a mapping."""
    usage = reply.get("usage") if isinstance(reply, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    return usage.get("prompt_tokens"), usage.get("completion_tokens"), cached


# The first chunk of most backends: a role, and no text. It comes before the model has read the prompt.
_ROLE = b'"role"'
_NO_TEXT = re.compile(rb'"content"\s*:\s*(?:""|null)')


def announces_json(piece: object) -> bool:
    """Whether events, as bytes, hold one chunk with a role and nothing of the model."""
    return (
        isinstance(piece, bytes)
        and _ROLE in piece
        and piece.count(b'"delta"') == 1
        and (b'"content"' not in piece or _NO_TEXT.search(piece) is not None)
        and b'"tool_calls"' not in piece
        and b'"reasoning' not in piece
    )


def announces_mapping(chunk: object) -> bool:
    """The same for a chunk as a mapping."""
    choices = chunk.get("choices") if isinstance(chunk, Mapping) else None
    if not choices or any(choice.get("finish_reason") for choice in choices):
        return False
    deltas = [choice.get("delta") or {} for choice in choices]
    return all(
        "role" in delta and not any(value for name, value in delta.items() if name != "role") for delta in deltas
    )
