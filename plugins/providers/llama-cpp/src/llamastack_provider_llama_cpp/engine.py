"""One model in one `xllamacpp.Server`, driven from the event loop.

llama.cpp generates on threads of its own and hands each chunk to a callback, on the thread that made the call. So every
call runs on a worker thread, which passes the chunks to the event loop; a callback that returns True cancels the call
and frees its slot.

Chunks and errors have the form of llama.cpp's HTTP server:
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

import math
import secrets
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import anyio
from anyio import from_thread, to_thread
from anyio.lowlevel import EventLoopToken, current_token

from llamastack.provider import (
    BackendError,
    ContextLengthExceededError,
    InvalidRequestError,
    LlamaStackError,
    NotSupportedError,
    ProviderUnavailableError,
)
from llamastack_provider_llama_cpp.config import LlamaCppConfig, ModelConfig
from llamastack_provider_llama_cpp.sampling import defaults_of_file

Chunk = dict[str, Any]
OnChunk = Callable[[Chunk], bool]
"""Takes a chunk; True asks to stop."""

_CONTEXT_STEP = 256
_TOO_LONG = "exceed_context_size_error"
_PROBE_TOOL = {
    "type": "function",
    "function": {"name": "probe", "description": "A probe", "parameters": {"type": "object", "properties": {}}},
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The properties of a loaded model.

    context_length: tokens of prompt and reply, per request; None for an encoder, which cannot generate.
    renders_tools: whether its chat template shows tools to the model.
    dimension: length of its embeddings; None if it has none.
    sampling: its own defaults, as fields of a request.
    """

    context_length: int | None
    renders_tools: bool
    dimension: int | None
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Call:
    """The state of one call that a worker thread and the event loop share. Only `cancelled` is changed by both."""

    token: EventLoopToken
    chunks: deque[Chunk] = field(default_factory=deque)
    news: anyio.Event = field(default_factory=anyio.Event)
    cancelled: bool = False
    done: bool = False
    failure: Exception | None = None

    def deliver(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.news.set()

    async def wait(self) -> None:
        """Wait until something is new."""
        self.news = anyio.Event()
        await self.news.wait()

    def cancel(self) -> None:
        self.cancelled = True

    def finish(self, failure: Exception | None) -> None:
        self.failure = failure
        self.done = True
        self.news.set()

    def on_chunk(self, chunk: Chunk) -> bool:
        """The callback, on the worker thread."""
        if not self.cancelled:
            try:
                from_thread.run_sync(self.deliver, chunk, token=self.token)
            except anyio.RunFinishedError:  # the event loop has ended, and the caller with it
                self.cancelled = True
        return self.cancelled


class Reply(AsyncIterator[Chunk]):
    """The chunks of one call.

    `cancel`, or dropping the iterator, stops the generation at its next token. Iterating raises the errors that
    `Engine` describes.
    """

    def __init__(self, call: _Call, provider_id: str) -> None:
        self._call = call
        self._provider_id = provider_id

    async def wait(self) -> None:
        """Wait for the first chunk, so that a refusal is raised here."""
        call = self._call
        while not call.chunks and not call.done:
            try:
                await call.wait()
            except BaseException:
                self.cancel()
                raise
        if call.chunks and "error" in call.chunks[0]:
            self.cancel()
            raise _error_of(call.chunks[0]["error"], self._provider_id)
        if call.failure is not None and not call.chunks:
            raise _error_of_exception(call.failure, self._provider_id) from call.failure

    async def __anext__(self) -> Chunk:
        await self.wait()
        if not self._call.chunks:
            if self._call.cancelled:
                raise _stopped(self._provider_id)
            raise StopAsyncIteration
        return self._call.chunks.popleft()

    def cancel(self) -> None:
        self._call.cancel()

    async def aclose(self) -> None:
        """As `cancel`."""
        self.cancel()

    def __del__(self) -> None:
        self.cancel()


class Engine:
    """A loaded model with `parallel` slots; further calls wait for one.

    Calls raise ContextLengthExceededError, InvalidRequestError, NotSupportedError or BackendError with llama.cpp's
    message, and ProviderUnavailableError once the engine is closed.
    """

    def __init__(
        self, server: Any, facts: ModelFacts, folder: tempfile.TemporaryDirectory[str], parallel: int, provider_id: str
    ) -> None:
        self.facts = facts
        self._server = server
        self._folder = folder
        self._provider_id = provider_id
        self._slots = anyio.CapacityLimiter(parallel)
        self._workers = ThreadPoolExecutor(parallel, thread_name_prefix="llama-cpp")
        self._calls: set[_Call] = set()

    @classmethod
    async def load(cls, model: ModelConfig, path: Path, config: LlamaCppConfig, provider_id: str) -> Self:
        """Load the GGUF file at `path`.

        Raises ProviderUnavailableError when llama.cpp refuses it.
        """
        folder = await to_thread.run_sync(lambda: tempfile.TemporaryDirectory(prefix="llama-cpp-"))
        try:
            server, facts = await to_thread.run_sync(_open, model, path, config, Path(folder.name))
        except (RuntimeError, ValueError) as error:
            await to_thread.run_sync(folder.cleanup)
            raise ProviderUnavailableError(
                f"provider '{provider_id}' cannot load model '{model.identifier}' from {path}: {error} "
                "('log_verbosity: 3' shows what llama.cpp says)",
                provider_id=provider_id,
            ) from error.with_traceback(None)  # its frames would keep the server alive
        return cls(server, facts, folder, config.parallel, provider_id)

    @property
    def closed(self) -> bool:
        return self._server is None

    async def chat(self, body: Mapping[str, Any]) -> Reply:
        """Start a streamed chat completion; returns at its first chunk."""
        return await self._start(lambda server, on_chunk: server.handle_chat_completions(_streamed(body), on_chunk))

    async def complete(self, body: Mapping[str, Any]) -> Reply:
        """Start a streamed text completion; returns at its first chunk."""
        return await self._start(lambda server, on_chunk: server.handle_completions(_streamed(body), on_chunk))

    async def check_schema(self, response_format: Mapping[str, Any]) -> None:
        """Raise InvalidRequestError for a JSON schema that llama.cpp cannot use.

        Only its chat endpoint says so; the text endpoint would generate without any constraint. The prompt is longer
        than the context, so the schema is read and nothing is computed.
        """
        assert self.facts.context_length is not None
        try:
            reply = await self.chat({**_too_long(self.facts.context_length), "response_format": response_format})
        except ContextLengthExceededError:
            return
        reply.cancel()
        raise BackendError("llama.cpp took a prompt that is longer than its context", provider_id=self._provider_id)

    async def embed(self, texts: list[str]) -> tuple[list[list[float]], int]:
        """One vector per text, and the number of tokens of all texts.

        The texts are computed one after the other, so that one call holds one slot.
        """

        def work(server: Any, on_chunk: OnChunk) -> None:
            for text in texts:
                if on_chunk(server.handle_embeddings({"input": [text]})):
                    return

        reply = await self._start(work)
        chunks = [chunk async for chunk in reply]
        tokens = sum(chunk["usage"]["prompt_tokens"] for chunk in chunks)
        return [chunk["data"][0]["embedding"] for chunk in chunks], tokens

    async def close(self) -> None:
        """Stop running calls, join the threads, free the model. Safe to call twice."""
        for call in self._calls:
            call.cancel()
        server, self._server = self._server, None
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._workers.shutdown)
            # Freeing joins llama.cpp's threads; the last reference is the one in this list.
            last = [server]
            del server
            await to_thread.run_sync(last.clear)
            await to_thread.run_sync(self._folder.cleanup)

    async def _start(self, work: Callable[[Any, OnChunk], object]) -> Reply:
        call = _Call(current_token())
        await self._slots.acquire_on_behalf_of(call)
        if self._server is None:
            self._slots.release_on_behalf_of(call)
            raise _stopped(self._provider_id)
        self._calls.add(call)
        self._workers.submit(self._run, self._server, work, call)
        reply = Reply(call, self._provider_id)
        await reply.wait()
        return reply

    def _run(self, server: Any, work: Callable[[Any, OnChunk], object], call: _Call) -> None:
        """On a worker thread: do the work, then tell the event loop that the slot is free."""
        failure: Exception | None = None
        try:
            work(server, call.on_chunk)
        except Exception as error:
            # The reader of the reply raises it; its frames would keep the server alive after `close`.
            failure = error.with_traceback(None)
        try:
            from_thread.run_sync(self._finish, call, failure, token=call.token)
        except anyio.RunFinishedError:
            return  # the event loop has ended: nobody waits

    def _finish(self, call: _Call, failure: Exception | None) -> None:
        call.finish(failure)
        self._calls.discard(call)
        self._slots.release_on_behalf_of(call)


def _streamed(body: Mapping[str, Any]) -> Chunk:
    # A call can only be stopped at a chunk; with `return_progress` there are chunks while the prompt is computed, too.
    return {**body, "stream": True, "return_progress": True, "stream_options": {"include_usage": True}}


def _open(model: ModelConfig, path: Path, config: LlamaCppConfig, folder: Path) -> tuple[Any, ModelFacts]:
    import xllamacpp

    wanted = math.ceil((model.context_length or config.context_length) / _CONTEXT_STEP) * _CONTEXT_STEP
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = wanted * config.parallel  # llama.cpp divides it among the slots
    params.n_parallel = config.parallel
    # An embedding must be computed in one batch.
    params.n_batch = params.n_ubatch = wanted if model.embedding else config.batch_size
    if config.threads is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    if model.chat_template is not None:
        params.chat_template = model.chat_template
    params.embedding = model.embedding
    if model.pooling is not None:
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{model.pooling.upper()}"]
    params.cache_prompt = config.prompt_cache
    params.cache_ram_mib = 0  # otherwise there is a second cache of up to 8 GiB
    params.verbosity = config.log_verbosity
    params.warmup = False
    # llama.cpp reads the file twice to fit the model into the memory of GPUs, which takes 40 % of the start.
    kinds = {device["type"] for device in xllamacpp.get_device_info()}
    params.fit_params = kinds != {xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU}
    # The HTTP server cannot be switched off. In a folder of this user, behind a key that nobody has, it serves nobody.
    params.hostnames = [str(folder / "llama.sock")]
    params.api_keys = [secrets.token_urlsafe()]
    params.n_threads_http = 1
    params.ui = False
    params.endpoint_slots = False
    server = xllamacpp.Server(params)
    sampling = defaults_of_file(path) | model.sampling.model_dump(exclude_none=True)
    return server, replace(_facts(server, wanted, model.embedding), sampling=sampling)


def _facts(server: Any, context_length: int, embedding: bool) -> ModelFacts:
    """Send a prompt that is too long: the refusal has the numbers, and nothing is computed."""
    dimension = None
    if embedding:
        reply = server.handle_embeddings({"input": ["x"]})
        if "error" in reply:
            raise ValueError(f"{reply['error']['message']} ('pooling' sets it)")
        dimension = len(reply["data"][0]["embedding"])
    refusal = _refusal(server, context_length, [])
    if refusal.get("type") != _TOO_LONG:
        if not embedding:
            raise RuntimeError(str(refusal))
        return ModelFacts(context_length=None, renders_tools=False, dimension=dimension)
    try:
        with_tools = _refusal(server, context_length, [_PROBE_TOOL]).get("n_prompt_tokens", 0)
    except ValueError:  # the template raises if there are tools
        with_tools = 0
    return ModelFacts(
        context_length=refusal["n_ctx"],
        renders_tools=with_tools > refusal["n_prompt_tokens"],
        dimension=dimension,
    )


def _too_long(context_length: int) -> Chunk:
    return {"messages": [{"role": "user", "content": "x " * (2 * context_length)}], "max_tokens": 1}


def _refusal(server: Any, context_length: int, tools: list[Chunk]) -> Chunk:
    """llama.cpp's error object for a prompt that is too long."""
    chunks: list[Chunk] = []
    body = _too_long(context_length) | ({"tools": tools} if tools else {})
    server.handle_chat_completions(_streamed(body), chunks.append)
    if not chunks or "error" not in chunks[0]:
        raise RuntimeError("llama.cpp took a prompt that is longer than its context")
    error: Chunk = chunks[0]["error"]
    return error


def _error_of(error: Mapping[str, Any], provider_id: str) -> LlamaStackError:
    """llama.cpp's `{"code", "message", "type"}` as one of ours."""
    message = f"llama.cpp: {error.get('message', 'unknown error')}"
    kind = error.get("type")
    # A text that is too long to embed has no error type of its own.
    if kind == _TOO_LONG or "is too large to process" in message:
        return ContextLengthExceededError(message, provider_id=provider_id)
    if kind == "invalid_request_error":
        return InvalidRequestError(message, provider_id=provider_id)
    if kind == "not_supported_error":
        return NotSupportedError(message, provider_id=provider_id)
    return BackendError(message, provider_id=provider_id)


def _error_of_exception(error: Exception, provider_id: str) -> LlamaStackError:
    """xllamacpp raises ValueError where llama.cpp refuses a request before it is queued."""
    kind = InvalidRequestError if isinstance(error, ValueError) else BackendError
    return kind(f"llama.cpp: {error}", provider_id=provider_id)


def _stopped(provider_id: str) -> ProviderUnavailableError:
    return ProviderUnavailableError(f"provider '{provider_id}' is not running", provider_id=provider_id)
