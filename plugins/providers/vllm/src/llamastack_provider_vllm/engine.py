"""Inference by a vLLM that the stack starts, and starts again when it crashes."""

from __future__ import annotations

import importlib.util

import anyio

from llamastack.provider import Deps, Progress, ProviderTimeoutError, ProviderUnavailableError
from llamastack_provider_vllm.config import VLLMConfig
from llamastack_provider_vllm.inference import VLLMInference, vllm_dialect
from llamastack_provider_vllm.process import VLLMProcess

_ASK_EVERY_S = 0.5
_ANSWER_WITHIN_S = 5.0


class InlineVLLMInference(VLLMInference):
    """Starts its own vLLM server and calls it."""

    def __init__(self, config: VLLMConfig, deps: Deps, process: VLLMProcess) -> None:
        super().__init__(
            config, deps, vllm_dialect(deps.provider_id), url="http://vllm/v1", key=None, uds=str(process.socket)
        )
        self._process = process
        self._model = config.model
        self._load_timeout_s = config.load_timeout_s

    async def initialize(self) -> None:
        """Start vLLM and wait until the model is loaded.

        Raises ProviderTimeoutError if that takes too long. If vLLM ends, now or later, the task that watches it raises
        an error, and the stack starts this provider again.
        """
        await self._process.start()
        self.deps.task_group.start_soon(self._process.follow)
        started = anyio.current_time()
        with anyio.move_on_after(self._load_timeout_s) as limit:
            while not await self._answers():
                waited = anyio.current_time() - started
                self.deps.report_progress(Progress(f"loading {self._model}", waited, None, "s"))
                await anyio.sleep(_ASK_EVERY_S)
            self._process.set_ready()
        if limit.cancelled_caught:
            raise ProviderTimeoutError(f"vLLM did not load {self._model} within {self._load_timeout_s:g} s")

    async def _answers(self) -> bool:
        # vLLM opens its socket before it listens on it.
        with anyio.move_on_after(_ANSWER_WITHIN_S):
            try:
                return bool(await self.served())
            except ProviderUnavailableError:
                return False
        return False

    async def shutdown(self) -> None:
        """Stop vLLM. May be called again."""
        await super().shutdown()  # first: vLLM does not end while a connection is open
        await self._process.stop()


async def get_provider_impl(config: VLLMConfig, deps: Deps) -> InlineVLLMInference:
    """The provider, not yet started. Raises ImportError if vLLM should run in this Python and is not installed."""
    if config.python is None and importlib.util.find_spec("vllm") is None:
        raise ImportError(
            "the package vllm is not installed: 'pip install llamastack-provider-vllm[inline]', or set "
            "'python' in the config to the Python of an environment that has it"
        )
    return InlineVLLMInference(config, deps, VLLMProcess(config))
