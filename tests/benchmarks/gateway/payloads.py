"""What is asked and answered: the same for every contender."""

from __future__ import annotations

import json
from typing import Any

MODEL = "bench-model"
PROVIDER_ID = "bench"
ALIAS = "bench-alias"
"""The name that the run config gives to the model."""
LARGE_BYTES = 2**20
EVENTS = 100  # in a whole stream, beside `[DONE]`
FIRST_WORD = "Llamas"
LAST_WORD = "herders."
DONE = "data: [DONE]\n\n"

_QUESTIONS: list[dict[str, Any]] = [
    {"role": "system", "content": "You answer in two or three plain sentences."},
    {"role": "user", "content": "What is the capital of Italy?"},
    {"role": "assistant", "content": "A domesticated animal of the Andes, related to the camel."},
    {"role": "user", "content": "And what are they kept for?"},
]
_ANSWER = (
    "Llamas are kept for carrying loads, for their wool, for their meat and as guards of other animals. A grown one "
    "carries about a quarter of its own weight for ten or twelve kilometres a day, and knows when it has had enough. "
    f"Beside their work they are calm and curious company, liked by walkers as much as by {LAST_WORD}"
)
_CREATED = 1_700_000_000


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def openai_request(*, stream: bool = False, model: str = MODEL) -> bytes:
    """The body of a request to `/v1/chat/completions`."""
    body = {"model": model, "messages": _QUESTIONS, "temperature": 0}
    return _json(body | {"stream": True} if stream else body).encode()


def large_openai_request(model: str = MODEL) -> bytes:
    """The same with a long conversation before the question: 1 MiB, in messages of 4 KiB."""
    text = (_ANSWER * 10)[:4000]
    turn = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    turns = (LARGE_BYTES - len(openai_request(model=model))) // len(_json(turn))
    body = {"model": model, "messages": [*(turn * turns), *_QUESTIONS], "temperature": 0}
    return _json(body).encode()


def native_request(*, stream: bool) -> bytes:
    """The body of the same request to `/inference/chat_completion`."""
    messages = [{**m, "stop_reason": "end_of_turn"} if m["role"] == "assistant" else m for m in _QUESTIONS]
    body = {"model": MODEL, "messages": messages, "sampling_params": {"strategy": "greedy"}}
    return _json(body | {"stream": True} if stream else body).encode()


def chat_reply() -> str:
    """The backend's answer to a plain request, about 600 bytes."""
    return _json(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": _CREATED,
            "model": MODEL,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": _ANSWER}, "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": 57, "completion_tokens": 74, "total_tokens": 131},
        }
    )


def ollama_reply() -> str:
    """What an Ollama server answers to the same, in one line."""
    reply = {"model": MODEL, "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": _ANSWER}}
    return _json(reply | {"done": True, "done_reason": "stop", "prompt_eval_count": 57, "eval_count": 74}) + "\n"


def ollama_models_reply() -> str:
    """Its answer to `GET /api/tags`."""
    return _json({"models": [{"name": MODEL, "model": MODEL, "digest": "bench", "size": 1}]})


def models_reply() -> str:
    """The backend's answer to `GET /v1/models`."""
    return _json(
        {"object": "list", "data": [{"id": MODEL, "object": "model", "created": _CREATED, "owned_by": "bench"}]}
    )


def stream_events() -> list[str]:
    """The backend's events, about 180 bytes each; the last but one has the finish reason, the last is `[DONE]`."""
    words = [FIRST_WORD, *(f" word{n}" for n in range(EVENTS - 3)), f" {LAST_WORD}"]
    deltas: list[dict[str, str]] = [{"content": word} for word in words]
    deltas[0]["role"] = "assistant"
    events = [_event(delta, None) for delta in deltas]
    return [*events, _event({}, "stop"), DONE]


def _event(delta: dict[str, str], finish_reason: str | None) -> str:
    chunk = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    return f"data: {_json(chunk)}\n\n"
