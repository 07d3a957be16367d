"""Chats and text completions as values."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from llamastack.api.common import SamplingParams, UserMessage
from llamastack.api.inference import Inference
from llamastack_adapters.chat_request import (
    ChatInference,
    ChatReply,
    ChatRequest,
    CompletionInference,
    CompletionReply,
    CompletionRequest,
)

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[4]
SIGNED = {
    ROOT / "core/src/llamastack/api/inference.py",
    ROOT / "plugins/kits/adapters/src/llamastack_adapters/chat_request.py",
}


class Recorder(ChatInference, CompletionInference):
    def __init__(self) -> None:
        self.seen: list[ChatRequest | CompletionRequest] = []

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.seen.append(request)
        raise LookupError

    async def complete(self, request: CompletionRequest) -> CompletionReply:
        self.seen.append(request)
        raise LookupError


@pytest.mark.parametrize(("method", "kind"), [("chat_completion", ChatRequest), ("completion", CompletionRequest)])
async def test_every_argument_of_a_call_is_in_the_request(method: str, kind: type) -> None:
    provider = Recorder()
    names = [name for name in inspect.signature(getattr(Inference, method)).parameters if name != "self"]
    given: dict[str, Any] = {name: f"the {name}" for name in names} | {"stream": True}
    with pytest.raises(LookupError):
        await getattr(provider, method)(**given)
    [request] = provider.seen
    assert {name: getattr(request, name) for name in names} == given
    assert type(request) is kind


async def test_a_call_of_nothing_else_is_greedy_and_whole() -> None:
    provider = Recorder()
    with pytest.raises(LookupError):
        await provider.chat_completion("m", [UserMessage(content="Hi")])
    [request] = provider.seen
    assert (request.stream, request.sampling) == (False, SamplingParams())


def test_a_base_without_its_method_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="chat"):
        ChatInference()  # type: ignore[abstract]


def test_the_long_signature_stands_in_the_protocol_and_in_the_base_alone() -> None:
    found = set()
    for folder in ("core/src", "plugins", "provider_template/src"):
        for file in (ROOT / folder).rglob("*.py*"):
            if "tests" in file.parts or file.suffix not in (".py", ".jinja"):
                continue
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".jinja":
                assert "tool_prompt_format" not in text, file
            elif "def chat_completion" in text:
                tree = ast.parse(text)
                if any(
                    isinstance(node, ast.AsyncFunctionDef) and node.name == "chat_completion" for node in ast.walk(tree)
                ):
                    found.add(file)
    # `typed_calls.py` is generated, for callers.
    assert {file for file in found if file.name != "typed_calls.py"} == SIGNED
