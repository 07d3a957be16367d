"""Fixtures: an environment without AWS credentials of its own, the stand-in for Bedrock, a stack with the provider."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from backends.bedrock import ACCESS_KEY, HAIKU, REGION, SECRET, BedrockFront, bedrock_app, bedrock_front
from backends.llama_server import LlamaServer
from backends.serving import serving
from starlette.applications import Starlette

from llamastack import Stack
from llamastack.api import SamplingParams, UserMessage


@dataclass
class Running:
    """A stack with one provider, `p`, and the stand-in of its backend."""

    stack: Stack
    front: BedrockFront

    async def chat(self, **arguments: Any) -> Any:
        """The reply to a question with a known answer: "The capital of", and no more unless told."""
        given = {
            "model": HAIKU,
            "messages": [UserMessage(content="What is the capital of France?")],
            "sampling_params": SamplingParams(max_tokens=3),
            **arguments,
        }
        return await self.stack.inference.chat_completion(**given)

    async def events(self, **arguments: Any) -> list[Any]:
        """The events of the same, streamed."""
        return [chunk.event async for chunk in await self.chat(stream=True, **arguments)]

    async def body_of(self, **arguments: Any) -> Any:
        """What Bedrock is sent for a chat."""
        await self.chat(**arguments)
        return self.front.last("Converse").body


@pytest.fixture(autouse=True)
def no_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own AWS settings counts, and nobody asks a metadata service."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def server(llama: LlamaServer) -> Iterator[tuple[Starlette, str]]:
    """One server for the stand-ins of a module: starting and stopping it takes longer than most tests."""
    app = bedrock_app(BedrockFront(llama))
    with serving(app) as url:
        yield app, url


@pytest.fixture
def bedrock(llama: LlamaServer, server: tuple[Starlette, str]) -> Iterator[Callable[..., tuple[BedrockFront, str]]]:
    """Make a stand-in; gives it and its URL."""
    free = [server]
    with ExitStack() as opened:

        def make(**settings: Any) -> tuple[BedrockFront, str]:
            if not free:
                return opened.enter_context(bedrock_front(llama, **settings))
            app, url = free.pop()
            app.state.front = BedrockFront(llama, **settings)
            return app.state.front, url

        yield make


@pytest.fixture
def started(bedrock: Callable[..., tuple[BedrockFront, str]]) -> Callable[..., Any]:
    """`async with started(**config) as running`. A config value of None leaves the key out.

    front: settings of the stand-in. run: further keys of the run config. through: makes the URL that the provider is
    given out of the stand-in's.
    """

    @asynccontextmanager
    async def start(
        front: dict[str, Any] | None = None,
        run: dict[str, Any] | None = None,
        through: Callable[[str], str] = str,
        **config: Any,
    ) -> AsyncIterator[Running]:
        made, url = bedrock(**(front or {}))
        own = {"region_name": REGION, "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET}
        full = {"endpoint_url": through(url), **own, **config}
        given = {name: value for name, value in full.items() if value is not None}
        provider = {"provider_id": "p", "provider_type": "remote::bedrock", "config": given}
        async with Stack.from_config({"providers": {"inference": [provider]}, **(run or {})}) as stack:
            yield Running(stack, made)

    return start


@pytest.fixture
async def running(started: Callable[..., Any]) -> AsyncIterator[Running]:
    async with started(models={"small": HAIKU}) as running:
        yield running
