"""vLLM's server in a process group of its own, on a Unix socket in a private folder.

Its flags: https://docs.vllm.ai/en/stable/cli/serve/
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections import deque
from pathlib import Path
from subprocess import PIPE, STDOUT

import anyio
from anyio import to_thread
from anyio.abc import Process

from llamastack.provider import ProviderUnavailableError
from llamastack.provider.redaction import Redactor
from llamastack_provider_vllm.config import VLLMConfig

_LOGGER = logging.getLogger("llamastack.provider")
_STOP_S = 5.0
_LAST_WORDS_S = 0.2
_KEPT_LINES = 12


def command_line(config: VLLMConfig, socket: Path) -> list[str]:
    """The command that starts vLLM's server.

    It runs the module: the script `vllm` does the same, but is not in every build of the package.
    """
    flags: dict[str, str | int | float | bool | None] = {
        "model": config.model,
        "served-model-name": config.identifier or config.model,
        "uds": str(socket),
        "tensor-parallel-size": config.tensor_parallel_size,
        "max-model-len": config.context_length,
        "gpu-memory-utilization": config.gpu_memory_utilization,
        "tool-call-parser": config.tool_call_parser,
        "enable-auto-tool-choice": config.tool_call_parser is not None,
        "chat-template": None if config.chat_template is None else str(config.chat_template),
        **config.arguments,
    }
    command = [str(config.python or sys.executable), "-m", "vllm.entrypoints.openai.api_server"]
    for name, value in flags.items():
        if value is True:
            command.append(f"--{name}")
        elif value is not None and value is not False:
            command += [f"--{name}", str(value)]
    return command


class VLLMProcess:
    """One server process, with the processes that it starts itself."""

    def __init__(self, config: VLLMConfig) -> None:
        self._config = config
        self._folder = tempfile.TemporaryDirectory(prefix="vllm-")  # no other user can enter it
        self.socket = Path(self._folder.name) / "vllm.sock"
        self._redact = Redactor(config)
        self._process: Process | None = None
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self._stopping = False
        self._followed: anyio.Event | None = None
        self._ready = False
        """Whether it has answered. Before that it ignores signals."""

    async def start(self) -> None:
        """Start the server, which answers once the model is loaded. Raises ProviderUnavailableError if it cannot."""
        environment = {name: value.get_secret_value() for name, value in self._config.environment.items()}
        try:
            self._process = await anyio.open_process(
                command_line(self._config, self.socket),
                stdout=PIPE,
                stderr=STDOUT,
                env={**os.environ, "VLLM_NO_USAGE_STATS": "1", **environment},
                start_new_session=True,
            )
        except OSError as error:
            raise ProviderUnavailableError(f"{self._config.python} cannot be run: {error.strerror}") from error

    def set_ready(self) -> None:
        """Note that the server has answered: from now on `stop` sends SIGTERM before SIGKILL."""
        self._ready = True

    async def follow(self) -> None:
        """Read its output until it ends. Raises ProviderUnavailableError with the last lines, unless it was stopped."""
        process = self._process
        assert process is not None
        self._followed = anyio.Event()
        try:
            async with anyio.create_task_group() as reading:
                reading.start_soon(self._read, process)
                status = await process.wait()
                # Its workers may outlive it and keep the pipe open.
                reading.cancel_scope.deadline = anyio.current_time() + _LAST_WORDS_S
        finally:
            self._followed.set()
        if not self._stopping:
            output = " | ".join(line for line in self._last if line.strip())
            raise ProviderUnavailableError(f"vLLM ended with status {status}: {output[-1000:]}")

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        rest = b""
        async for block in process.stdout:
            *lines, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")  # progress bars end lines with CR
            for line in lines:
                text = self._redact(line.decode(errors="replace").rstrip())
                self._last.append(text)
                _LOGGER.debug("vllm: %s", text)

    async def stop(self) -> None:
        """End the server and all its processes; safe to call twice."""
        self._stopping = True
        process, self._process = self._process, None
        with anyio.CancelScope(shield=True):
            if process is not None:
                if self._ready and process.returncode is None:
                    process.terminate()
                    with anyio.move_on_after(_STOP_S):
                        await process.wait()
                # Its workers outlive it if it is killed or crashes.
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    _LOGGER.debug("vllm: all of its processes have ended")
                await process.wait()
                if self._followed is not None:
                    # asyncio releases the process at the end of its output, not before.
                    with anyio.move_on_after(_LAST_WORDS_S):
                        await self._followed.wait()
            await to_thread.run_sync(self._folder.cleanup)
