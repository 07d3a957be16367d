"""A real `llamastack run` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

READY = re.compile(r"Serving on (http://\S+)")


@dataclass
class RunningServer:
    """url: of the server. output: what it printed so far, both streams."""

    url: str
    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, as an operator would; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def running_server(
    config: str | Path,
    *,
    home: Path,
    command: Sequence[str] = (str(Path(sys.executable).with_name("llamastack")),),
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 90,
    port: int = 0,
) -> Iterator[RunningServer]:
    """Run `config` on `port`, by default a free one; raises RuntimeError with its output when it does not get ready."""
    process = subprocess.Popen(
        [*command, "run", str(config), "--port", str(port), "--start-wait", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "LLAMASTACK_HOME": str(home), **(environment or {})},
    )
    output: list[str] = []
    ready = threading.Event()
    urls: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            found = READY.search(line)
            if found:
                urls.append(found.group(1))
                ready.set()
        ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        ready.wait(timeout_s)
        if not urls:
            raise RuntimeError(f"the server did not get ready:\n{''.join(output)}")
        yield RunningServer(urls[0], process, output)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait(30)
        reader.join(30)
        assert process.stdout is not None
        process.stdout.close()
