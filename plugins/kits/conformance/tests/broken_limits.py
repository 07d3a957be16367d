"""Providers that are each broken in one way in what they keep of many calls, or read of a long answer."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event, Thread
from typing import Any, ClassVar

import anyio
from broken_inference import Base, broken
from broken_others import deaf, forgetful, idle
from broken_requests import hasty
from scripted_memory import RestConfig, RestMemory

from llamastack.provider import Deps
from llamastack_provider_sample.agents import SampleAgents
from llamastack_provider_sample.memory import SampleMemory
from llamastack_provider_sample.telemetry import SampleTelemetry

_VAST = 2**40


@broken("failure.long-answer")
class ReadsAnswersOfAnyLength(Base):
    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config.model_copy(update={"max_response_bytes": _VAST}), *args, **kwargs)


@broken("failure.long-answer")
class ReadsEventsOfAnyLength(Base):
    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config.model_copy(update={"max_event_bytes": _VAST}), *args, **kwargs)


@hasty("failure.long-answer")
class ReadsResultsOfAnyLength(RestMemory):
    def __init__(self, config: RestConfig, deps: Deps) -> None:
        super().__init__(config.model_copy(update={"max_response_bytes": _VAST}), deps)


@broken("stress.leaves-nothing")
class LeavesATaskOfEachCall(Base):
    async def send_text(self, *args: Any, **kwargs: Any) -> Any:
        self.deps.task_group.start_soon(anyio.sleep_forever)
        return await super().send_text(*args, **kwargs)


@forgetful("stress.leaves-nothing")
class LeavesAThreadOfEachInsert(SampleMemory):
    ended: ClassVar[Event] = Event()

    async def store(self, *args: Any, **kwargs: Any) -> Any:
        Thread(target=self.ended.wait, args=(20,), daemon=True).start()
        return await super().store(*args, **kwargs)


@deaf("stress.leaves-nothing")
class LeavesAFileOfEachEvent(SampleTelemetry):
    opened: tuple[int, ...] = ()

    async def log_event(self, event: Any) -> None:
        self.opened = (*self.opened, os.open(os.devnull, os.O_RDONLY))
        await super().log_event(event)

    async def shutdown(self) -> None:
        for number in self.opened:
            os.close(number)


@idle("stress.leaves-nothing")
class LeavesTheEndOfEachStream(SampleAgents):
    left: tuple[Any, ...] = ()

    async def _take_turn(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for piece in super()._take_turn(*args, **kwargs):
            yield piece
        self.left = (*self.left, asyncio.ensure_future(anyio.sleep_forever()))


@forgetful("failure.leaves-nothing")
class LeavesATemporaryFile(SampleMemory):
    async def search(self, *args: Any, **kwargs: Any) -> Any:
        with tempfile.NamedTemporaryFile(delete=False) as made:
            Path(made.name).write_text("a query")
        return await super().search(*args, **kwargs)


@broken("failure.cancelled-call")
class AnswersWhenItIsCancelled(Base):
    async def send_chat(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().send_chat(*args, **kwargs)
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            return {"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
