"""A stack before the stand-in of Ollama, as the tests of the provider use it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from backends.fault_proxy import FaultProxy
from backends.ollama import OllamaStandIn
from backends.ollama_models import CHAT
from llamastack import Stack
from llamastack.api import SamplingParams, UserMessage

CAPITAL = [UserMessage(content="What is the capital of France?")]
LONG = [UserMessage(content="Count from one to one thousand, in words.")]


def limit(tokens: int, **more: Any) -> SamplingParams:
    return SamplingParams.model_validate({"max_tokens": tokens, **more})


@dataclass
class Running:
    """A stack with one provider, `o`, which reaches the stand-in through `proxy`."""

    stack: Stack
    ollama: OllamaStandIn
    proxy: FaultProxy

    async def chat(self, **arguments: Any) -> Any:
        given = {"model": CHAT, "messages": CAPITAL, "sampling_params": limit(24), **arguments}
        return await self.stack.inference.chat_completion(**given)

    async def complete(self, **arguments: Any) -> Any:
        given = {"model": CHAT, "content": "One, two, three,", "sampling_params": limit(6), **arguments}
        return await self.stack.inference.completion(**given)


Start = Callable[..., AbstractAsyncContextManager[Running]]
