"""What the tests of this package share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
from backends.llama_server import LlamaServer
from backends.tgi import TGIStandIn, tgi_stand_in

from llamastack import Stack


@pytest.fixture(scope="module")
def usual_tgi(llama: LlamaServer) -> Iterator[tuple[TGIStandIn, str]]:
    """A `TGIStandIn` with the usual settings over the llama.cpp server, and its URL; one for a whole file."""
    with tgi_stand_in(llama.url) as made:
        yield made


@pytest.fixture
def tgi(llama: LlamaServer, usual_tgi: tuple[TGIStandIn, str]) -> Iterator[Callable[..., tuple[TGIStandIn, str]]]:
    """Make a `TGIStandIn` with settings; gives it and its URL. Without any it is the usual one, as new."""
    with ExitStack() as opened:

        def make(**settings: Any) -> tuple[TGIStandIn, str]:
            if settings:
                return opened.enter_context(tgi_stand_in(llama.url, **settings))
            usual_tgi[0].seen.clear()
            usual_tgi[0].answers.clear()
            usual_tgi[0].disconnects = 0
            return usual_tgi

        yield make


@pytest.fixture
def running() -> Callable[..., Any]:
    """`async with running("remote::tgi", url=...) as stack`: a stack with one provider, `p`."""

    @asynccontextmanager
    async def run(provider_type: str = "remote::tgi", **config: Any) -> AsyncIterator[Stack]:
        provider = {"provider_id": "p", "provider_type": provider_type, "config": config}
        async with Stack.from_config({"providers": {"inference": [provider]}}) as stack:
            yield stack

    return run


@pytest.fixture(autouse=True)
def token_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> str:
    """A token that the SDK would find by itself; nothing may ever send it."""
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_machine")
    return "hf_of_the_machine"
