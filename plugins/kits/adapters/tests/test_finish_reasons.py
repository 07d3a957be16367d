"""The words by which backends say why a reply ended."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack.api import StopDetail, StopReason
from llamastack.provider.errors import BackendError, ProviderUnavailableError
from llamastack_adapters.openai_dialect.finish_reasons import Finish, finish_of

END = Finish(StopReason.end_of_turn)
FULL = Finish(StopReason.out_of_tokens)
CALLED = Finish(StopReason.end_of_message)
FILTERED = Finish(StopReason.end_of_turn, StopDetail.content_filter)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ((None, "", "  ", False, {}), None),
        (("stop", "end_turn", "eos", "eos_token", "stop_sequence", "stop-token", "COMPLETE", "x" * 9999, 7), END),
        (("length", "max_tokens", "MAX_TOKENS", "max-tokens", "max_length", "max_output_tokens", "maxTokens"), FULL),
        (("model_length", "token_limit", "context_window", "model_context_window_exceeded", "ERROR_LIMIT"), FULL),
        (("tool_calls", "function_call", "tool_use", "TOOL_CALL"), CALLED),
        (("content_filter", "content_filtered", "Safety", "guardrail_intervened", "ERROR_TOXIC", "refusal"), FILTERED),
        (({"type": "length", "length": 5}, {"type": "LENGTH"}), FULL),
        (({"type": "stop", "matched": 2},), END),
    ],
)  # fmt: skip
def test_words(words: tuple[Any, ...], meant: Finish | None) -> None:
    for word in words:
        assert finish_of(word, "p") == meant, word


@pytest.mark.parametrize(
    "word", ["abort", "ABORTED", "error", "internal_error", "cancelled", "failed", "malformed_tool_use", "timeout"]
)
def test_a_reply_that_was_given_up(word: str) -> None:
    with pytest.raises(BackendError, match=f"gave up the reply: finish_reason '{word}'") as caught:
        finish_of(word, "p")
    assert caught.value.provider_id == "p"


def test_the_reason_that_stands_beside_the_word() -> None:
    with pytest.raises(ProviderUnavailableError, match="overloaded"):
        finish_of("error", "p", error={"code": 503, "message": "overloaded"})
    with pytest.raises(BackendError, match="no more memory"):
        finish_of({"type": "abort", "message": "no more memory"}, "p")


@given(st.text() | st.integers() | st.booleans() | st.none())
def test_any_word_is_one_of_these(word: Any) -> None:
    with contextlib.suppress(BackendError):
        assert finish_of(word, "p") in (None, END, FULL, CALLED, FILTERED)
