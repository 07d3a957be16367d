"""A fake provider whose behaviour each test scripts: for faults that no real provider shows on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
from pydantic import BaseModel, ConfigDict, SecretStr

from llamastack.api.common import CompletionMessage, StopReason
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
    EmbeddingsResponse,
)
from llamastack.api.models import Model
from llamastack.provider import Api, Capabilities, Deps, InlineProviderSpec, UnsupportedModelError
from llamastack.provider.streams import Stream


@dataclass
class Script:
    """What the fake does. The `fail_*` are raised for as long as they are set."""

    serves: list[str] = field(default_factory=lambda: ["m"])
    accepts: list[str] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    fail_start: Exception | None = None
    fail_list: Exception | None = None
    fail_register: Exception | None = None
    fail_unregister: Exception | None = None
    fail_after_unregister: Exception | None = None
    fail_call: Exception | None = None
    fail_after_pieces: int | None = None
    hang_start: bool = False
    hang_list: bool = False
    hang_register: bool = False
    slow_register_s: float = 0.0
    slow_unregister_s: float = 0.0
    pieces: int = 3
    piece_delay_s: float = 0.0
    always_ready: bool = False
    """Pieces come without a pause in which anything else could run."""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    registered: list[str] = field(default_factory=list)
    replays: list[bool] = field(default_factory=list)
    slow_start_s: list[float] = field(default_factory=list)
    shut_down: int = 0
    opened_streams: int = 0
    closed_streams: int = 0
    in_flight: int = 0
    deps: Deps | None = None
    order: list[str] = field(default_factory=list)

    def last(self, call: str) -> Any:
        """What the newest `call` came with."""
        return next(arguments for name, arguments in reversed(self.calls) if name == call)


SCRIPTS: dict[str, Script] = {}


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    script: str = "default"
    api_key: SecretStr | None = None
    port: int = 1


class ProviderData(BaseModel):
    scripted_api_key: str


class ScriptedInference:
    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self.script = script
        self.taken: dict[str, Model] = {}
        """What this instance has taken since it was made; `script.registered` has that of all instances."""

    async def initialize(self) -> None:
        self.script.order.append(f"start {self.name}")
        if self.script.hang_start:
            await anyio.sleep_forever()
        if self.script.fail_start is not None:
            raise self.script.fail_start

    async def shutdown(self) -> None:
        self.script.shut_down += 1
        self.script.order.append(f"stop {self.name}")

    async def list_models(self) -> list[Model]:
        self.script.calls.append(("list", None))
        if self.script.hang_list:
            await anyio.sleep_forever()
        if self.script.fail_list is not None:
            raise self.script.fail_list
        return [Model(identifier=name, metadata=self.script.metadata) for name in self.script.serves]

    async def register_model(self, model: Model) -> None:
        self.script.calls.append(("register", model.identifier))
        replaced = self.taken.pop(model.identifier, model)
        assert replaced == model, "the old definition must be forgotten first"
        if self.script.deps is not None:
            self.script.replays.append(self.script.deps.replaying)
        if self.script.fail_register is not None:
            raise self.script.fail_register
        if self.script.accepts is not None and model.identifier not in self.script.accepts:
            raise UnsupportedModelError(model.identifier, available=self.script.accepts)
        if self.script.hang_register:
            await anyio.sleep_forever()
        if model.identifier not in self.script.serves:  # else it serves it anyway
            self.taken[model.identifier] = model
        self.script.registered.append(model.identifier)
        if self.script.slow_register_s:
            await anyio.sleep(self.script.slow_register_s)

    async def unregister_model(self, model: Model) -> None:
        self.script.calls.append(("unregister", model.identifier))
        if self.script.fail_unregister is not None:
            raise self.script.fail_unregister
        await anyio.sleep(self.script.slow_unregister_s)
        self.taken.pop(model.identifier, None)
        while model.identifier in self.script.registered:
            self.script.registered.remove(model.identifier)
        if self.script.fail_after_unregister is not None:
            raise self.script.fail_after_unregister

    async def forget_model(self, model: Model) -> None:
        self.script.calls.append(("forget", model.identifier))
        self.taken.pop(model.identifier, None)

    async def completion(self, **arguments: Any) -> Any:
        self.script.calls.append(("completion", arguments))
        if arguments.get("stream"):
            return self._texts()
        return CompletionResponse(completion_message=_message(self.name))

    async def _texts(self) -> AsyncIterator[CompletionResponseStreamChunk]:
        for number in range(self.script.pieces):
            yield CompletionResponseStreamChunk(delta=f"{number} ")
        yield CompletionResponseStreamChunk(delta="", stop_reason=StopReason.end_of_turn)

    async def chat_completion(self, **arguments: Any) -> Any:
        self.script.calls.append(("chat_completion", arguments))
        if self.script.fail_call is not None:
            raise self.script.fail_call
        if self.script.deps is not None:
            self.script.calls.append(("request_data", self.script.deps.request_data()))
        if arguments.get("stream"):
            if self.script.slow_start_s:
                await anyio.sleep(self.script.slow_start_s.pop(0))
            self.script.opened_streams += 1
            return Stream(self._pieces(), self._closed)
        if self.script.piece_delay_s:
            self.script.in_flight += 1
            try:
                await anyio.sleep(self.script.piece_delay_s)
            finally:
                self.script.in_flight -= 1
        return ChatCompletionResponse(completion_message=_message(self.name))

    async def _closed(self) -> None:
        self.script.closed_streams += 1

    async def _pieces(self) -> AsyncIterator[ChatCompletionResponseStreamChunk]:
        kinds = ChatCompletionResponseEventType
        self.script.in_flight += 1
        try:
            yield _piece(kinds.start, "")
            for number in range(self.script.pieces):
                if number == self.script.fail_after_pieces:
                    raise self.script.fail_call or RuntimeError("broken off")
                if not self.script.always_ready:
                    await anyio.sleep(self.script.piece_delay_s)
                yield _piece(kinds.progress, f"{number} ")
            yield _piece(kinds.complete, "", StopReason.end_of_turn)
        finally:
            self.script.in_flight -= 1

    async def embeddings(self, model: str, contents: list[Any]) -> EmbeddingsResponse:
        return EmbeddingsResponse(embeddings=[[0.0] for _ in contents])


def _message(text: str) -> CompletionMessage:
    return CompletionMessage(content=text, stop_reason=StopReason.end_of_turn)


def _piece(kind: Any, delta: str, reason: StopReason | None = None) -> ChatCompletionResponseStreamChunk:
    return ChatCompletionResponseStreamChunk(
        event=ChatCompletionResponseEvent(event_type=kind, delta=delta, stop_reason=reason)
    )


async def make(config: Config, deps: Deps) -> ScriptedInference:
    script = SCRIPTS.setdefault(config.script, Script())
    script.deps = deps
    return ScriptedInference(deps.provider_id, script)


async def make_incomplete(config: Config, deps: Deps) -> object:
    class Incomplete:
        async def list_models(self) -> list[Model]:
            return []

        def register_model(self, model: Model) -> None:
            """Not async."""

        async def chat_completion(self, model: str) -> None:
            """Lacks the messages."""

        async def completion(self, model: str, content: Any, mood: str, **rest: Any) -> None:
            """Wants what it will not get."""

    return Incomplete()


def _spec(**changes: Any) -> InlineProviderSpec:
    settings: dict[str, Any] = {
        "api": Api.inference,
        "provider_type": "scripted",
        "description": "A scripted fake",
        "config_class": "scripted_fake:Config",
        "factory": "scripted_fake:make",
        "provider_data_validator": "scripted_fake:ProviderData",
    }
    return InlineProviderSpec(**(settings | changes))


SPEC = _spec()
NO_TOOLS = _spec(provider_type="no-tools", capabilities=Capabilities(tools="unsupported", completion="not implemented"))
INCOMPLETE = _spec(provider_type="incomplete", factory="scripted_fake:make_incomplete")
NO_SDK = _spec(provider_type="no-sdk", factory="sdk_that_is_not_installed.inference:make")
FUTURE = _spec(provider_type="future", api_version=">=2.0")
OTHER_API = _spec(provider_type="other-api", api="safety")
NOT_A_SPEC = "just text"
NEEDS_MEMORY = _spec(provider_type="needs-memory", api_dependencies=("memory",))
NEEDS_INFERENCE = _spec(
    api="memory", provider_type="needs-inference", api_dependencies=("inference",), factory="scripted_fake:make_memory"
)


class ScriptedMemory:
    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self.script = script

    async def initialize(self) -> None:
        self.script.order.append(f"start {self.name}")

    async def shutdown(self) -> None:
        self.script.order.append(f"stop {self.name}")

    async def list_memory_banks(self) -> list[Any]:
        return []

    async def register_memory_bank(self, memory_bank: Any) -> None:
        """Takes everything."""

    async def insert_documents(self, bank_id: str, documents: list[Any], ttl_seconds: int | None = None) -> None:
        """Forgets everything."""

    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        raise NotImplementedError

    async def delete_documents(self, bank_id: str, document_ids: list[str]) -> None:
        """Has nothing."""


async def make_memory(config: Config, deps: Deps) -> ScriptedMemory:
    script = SCRIPTS.setdefault(config.script, Script())
    assert "inference" in deps
    return ScriptedMemory(deps.provider_id, script)
