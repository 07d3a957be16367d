"""A stand-in for a resource of Azure OpenAI, on both of its surfaces, with the forms that are Azure's own.

Formats: https://learn.microsoft.com/azure/ai-foundry/openai/reference and, of the filter's results,
https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backends.scripted_http import Received, ScriptedHttp, Steps, answer, scripted_http, sse

KEY = "azure-key-3d5e"
DEPLOYMENT = "chat prod"
"""A name whose path has to be quoted."""
API_VERSION = "2024-10-21"
FILTERED = "Tell me something forbidden."
"""What the filter refuses to hand to the model."""
CUT = "Begin well, end badly."
"""What the model answers half of, before the filter ends it."""
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}

_SAFE = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"filtered": False, "detected": False}}
_BAD = {"violence": {"filtered": True, "severity": "high"}}
_PROMPT_RESULTS = [{"prompt_index": 0, "content_filter_results": _SAFE}]
_DEPLOYED = re.compile(r"/openai/deployments/([^/]+)/(chat/completions|completions|embeddings)$")
_V1 = "/openai/v1/"
_WRONG_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)
_FILTER_SAYS = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify "
    "your prompt and retry."
)


def _error(status: int, code: str, message: str, /, **more: Any) -> Steps:
    return answer(status, {"error": {"code": code, "message": message, **more}})


def _chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}
    return {**head, "system_fingerprint": "fp_1", "choices": [*choices], **more}


def _choice(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    made = {"index": 0, "finish_reason": finish, "logprobs": None, **more}
    return made if delta is None else {**made, "delta": delta}


def _has_key(request: Received) -> bool:
    """`/openai/v1/` takes it as OpenAI does, too."""
    as_openai = request.path.startswith(_V1) and request.headers.get("authorization") == f"Bearer {KEY}"
    return as_openai or request.headers.get("api-key") == KEY


def _list_models(request: Received) -> Steps:
    path, _, query = request.path.partition("?")
    if not _has_key(request):
        return _error(401, "401", _WRONG_KEY)
    if path != f"{_V1}models" and (path != "/openai/models" or query != f"api-version={API_VERSION}"):
        return _error(404, "404", "Resource not found")
    base = {"id": "gpt-4o-2024-08-06", "object": "model", "status": "succeeded", "created_at": 1, "updated_at": 1}
    capabilities = {"inference": True, "chat_completion": True, "completion": False, "embeddings": False}
    return answer(200, {"data": [{**base, "capabilities": capabilities}], "object": "list"})


def _reply(request: Received) -> Steps:
    path, _, query = request.path.partition("?")
    if not _has_key(request):
        return _error(401, "401", _WRONG_KEY)
    body = request.json
    if (found := _DEPLOYED.search(path)) is not None and query == f"api-version={API_VERSION}":
        deployment, route = found[1].replace("%20", " "), found[2]
    elif path.startswith(_V1) and not query:
        deployment, route = body["model"], path.removeprefix(_V1)
    else:
        return _error(404, "404", "Resource not found")
    if deployment != DEPLOYMENT:
        return _error(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
    if route == "embeddings":
        vectors = [{"object": "embedding", "index": n, "embedding": [0.5, n]} for n, _ in enumerate(body["input"])]
        return answer(200, {"object": "list", "data": vectors, "model": "ada", "usage": USAGE})
    if route == "completions":
        text = {"index": 0, "text": "Hi", "finish_reason": "stop", "logprobs": None, "content_filter_results": _SAFE}
        return answer(200, {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "x", "choices": [text]})
    return _chat(body)


def _chat(body: dict[str, Any]) -> Steps:
    asked = body["messages"][-1]["content"]
    if asked == FILTERED:
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _BAD}
        return _error(400, "content_filter", _FILTER_SAYS, param="prompt", type=None, status=400, innererror=inner)
    cut = asked == CUT
    finish, results = ("content_filter", _BAD) if cut else ("stop", _SAFE)
    if not body.get("stream"):
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "refusal": None},
            "finish_reason": finish,
            "logprobs": None,
            "content_filter_results": results,
        }
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-08-06"}
        return answer(200, {**head, "choices": [choice], "usage": USAGE, "prompt_filter_results": _PROMPT_RESULTS})
    usage = [_chunk(usage=USAGE)] if (body.get("stream_options") or {}).get("include_usage") else []
    return sse(
        # What the filter found of the prompt comes first, in a piece that has nothing else.
        {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": _PROMPT_RESULTS},
        _chunk(_choice({"role": "assistant", "content": "", "refusal": None}, content_filter_results={})),
        _chunk(_choice({"content": "Hi"}, content_filter_results=_SAFE)),
        # With the asynchronous filter its results come apart, without a delta.
        _chunk(_choice(None, content_filter_results=results, content_filter_offsets={"start_offset": 0})),
        _chunk(_choice({}, finish, content_filter_results=results)),
        *usage,
        "[DONE]",
    )


@contextmanager
def azure_stand_in() -> Iterator[ScriptedHttp]:
    """A resource with one deployment, for chats, text completions and embeddings alike."""
    with scripted_http(default=_reply, routes={"/models": _list_models}) as backend:
        yield backend
