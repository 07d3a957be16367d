"""`finish_reason` of backends -> native stop reasons, for whole and streamed replies."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from llamastack.api.common import StopReason
from llamastack.api.inference import StopDetail
from llamastack.provider.errors import BackendError, LlamaStackError
from llamastack_adapters.error_bodies import error_of_event


class Finish(NamedTuple):
    """Why a reply ended. detail: more than the stop reason can express, or None."""

    reason: StopReason
    detail: StopDetail | None = None

    @property
    def regular(self) -> bool:
        """Whether the model itself ended the reply, so that it is complete."""
        return self.reason is not StopReason.out_of_tokens and self.detail is None


END_OF_TURN = Finish(StopReason.end_of_turn)

# perf: llamastack-native. Without it, these words go through a substitution and up to three searches.
_USUAL = {
    "stop": END_OF_TURN,
    "length": Finish(StopReason.out_of_tokens),
    "tool_calls": Finish(StopReason.end_of_message),
}
_OUT_OF_TOKENS = re.compile(
    "length|max_?(new_|output_|completion_|total_|input_)?tokens|token_limit|context_(window|limit|full)"
    "|out_of_tokens|error_limit|truncated|^incomplete$|^limit$"
)
_FILTERED = re.compile(
    "filter|guardrail|safety|moderation|sensitive|toxic|prohibited|blocklist|recitation|^(refusal|spii|flagged|blocked)$"
)
_FAILED = re.compile(
    "abort|error|fail|cancel|malformed|timeout|timed_out|unexpected_tool_call|insufficient_system_resource"
)
_CALLED = ("tool_calls", "tool_call", "tool_use", "function_call", "function_calls")


def finish_of(word: Any, provider_id: str, *, error: object = None) -> Finish | None:
    """The meaning of a `finish_reason`; None for null and an empty text.

    Unknown values end the turn.

    error: the error beside it, if any.

    Raises the error of a reply that the backend gave up.
    """
    if isinstance(word, str) and word in _USUAL:
        return _USUAL[word]
    if isinstance(word, dict):  # SGLang's own form
        word, error = word.get("type"), error or word.get("message")
    if not word:
        return None
    name = re.sub(r"[\s.-]+", "_", str(word).strip().lower())
    if not name:
        return None
    if _OUT_OF_TOKENS.search(name):
        return Finish(StopReason.out_of_tokens)
    if name in _CALLED:
        return Finish(StopReason.end_of_message)
    if _FILTERED.search(name):
        return Finish(StopReason.end_of_turn, StopDetail.content_filter)
    if _FAILED.search(name):
        raise _given_up(word, provider_id, error)
    return END_OF_TURN


def _given_up(word: object, provider_id: str, error: object) -> LlamaStackError:
    where = f"the backend of provider '{provider_id}'"
    if error:
        return error_of_event(error, where).amend(provider_id=provider_id)
    return BackendError(f"{where} gave up the reply: finish_reason {str(word)!r}", provider_id=provider_id)
