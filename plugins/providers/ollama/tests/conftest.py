"""A stack before the stand-in of Ollama."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from backends.fault_proxy import FaultProxy
from backends.llama_server import LlamaServer
from backends.ollama import OllamaStandIn, ollama_stand_in
from backends.ollama_models import CHAT
from backends.ollama_stack import Running, Start

from llamastack import Stack


@pytest.fixture
def stand_in(llama: LlamaServer) -> Iterator[tuple[OllamaStandIn, str]]:
    with ollama_stand_in(llama) as made:
        yield made


@pytest.fixture
def start(stand_in: tuple[OllamaStandIn, str], faulty: Callable[[str], FaultProxy], tmp_path: Path) -> Start:
    """`async with start(**config) as running`; kept: registrations are there at the next start."""

    @asynccontextmanager
    async def run(*, kept: bool = False, **config: Any) -> AsyncIterator[Running]:
        made, url = stand_in
        proxy = faulty(url)
        provider = {"provider_id": "o", "provider_type": "remote::ollama", "config": {"url": proxy.url, **config}}
        run_config: dict[str, Any] = {"providers": {"inference": [provider]}, "refresh_interval_s": 60}
        if kept:
            run_config["store"] = {"type": "sqlite", "config": {"path": str(tmp_path / "registry.sqlite")}}
        async with Stack.from_config(run_config) as stack:
            yield Running(stack, made, proxy)

    return run


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    async with start(models={"small": CHAT}) as made:
        yield made
