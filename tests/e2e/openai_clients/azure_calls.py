"""The openai package, unmodified, before the stand-in of a resource of Azure OpenAI: on each of its surfaces.

Usage: python azure_calls.py SETTINGS; a JSON object with url, key, deployment, api_version, filtered, cut.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import openai

settings = json.loads(sys.argv[1])
DEPLOYMENT = settings["deployment"]


def of_deployments(**more: Any) -> openai.OpenAI:
    given = {"azure_endpoint": settings["url"], "api_key": settings["key"], "api_version": settings["api_version"]}
    return openai.AzureOpenAI(**{**given, "max_retries": 0, **more})


def of_v1(**more: Any) -> openai.OpenAI:
    given = {"base_url": f"{settings['url']}/openai/v1/", "api_key": settings["key"]}
    return openai.OpenAI(**{**given, "max_retries": 0, **more})


def raised(kind: type[openai.APIStatusError], call: Callable[[], object]) -> Any:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def check(make: Callable[..., openai.OpenAI]) -> None:
    client = make()

    def chat(text: str = "Hello", **more: Any) -> Any:
        asked: dict[str, Any] = {"model": DEPLOYMENT, "messages": [{"role": "user", "content": text}]}
        return client.chat.completions.create(**(asked | more))

    reply = chat(max_completion_tokens=5)
    assert reply.choices[0].message.content == "Hi", reply
    assert reply.model_extra["prompt_filter_results"][0]["prompt_index"] == 0, reply
    pieces = list(chat(stream=True, stream_options={"include_usage": True}))
    assert pieces[0].choices == [], pieces
    texts = [choice.delta.content for piece in pieces for choice in piece.choices if choice.delta is not None]
    assert "".join(text or "" for text in texts) == "Hi", pieces
    assert pieces[-1].usage.total_tokens == 4, pieces
    assert chat(settings["cut"]).choices[0].finish_reason == "content_filter"
    error = raised(openai.BadRequestError, lambda: chat(settings["filtered"]))
    assert (error.code, error.param) == ("content_filter", "prompt"), error
    assert error.body["innererror"]["code"] == "ResponsibleAIPolicyViolation", error
    assert raised(openai.NotFoundError, lambda: chat(model="gone")).code == "DeploymentNotFound"
    assert client.completions.create(model=DEPLOYMENT, prompt="a").choices[0].text == "Hi"
    assert client.embeddings.create(model=DEPLOYMENT, input=["a"], encoding_format="float").data[0].embedding[0] == 0.5
    assert [model.id for model in client.models.list()] == ["gpt-4o-2024-08-06"]
    wrong = make(api_key="wrong")
    assert raised(openai.AuthenticationError, wrong.models.list).status_code == 401


check(of_deployments)
assert raised(openai.NotFoundError, of_deployments(api_version="1999-01-01").models.list).status_code == 404
check(of_v1)
print("both surfaces answer the client")
