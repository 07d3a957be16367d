"""`--reload`: what the watching process sees."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from uvicorn import Config
from uvicorn.supervisors import basereload

from llamastack_server.commands.reload import _Reloader


@pytest.mark.parametrize("method", ["startup", "restart"])
def test_what_is_written_while_a_process_starts_is_seen(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("old")

    class Starting:
        """A process while which starts the file is saved, after it was read."""

        pid = 1

        def start(self) -> None:
            file.write_text("new")
            os.utime(file, (0, file.stat().st_mtime + 1))  # whatever the file system's clock is worth

        def terminate(self) -> None: ...

        def join(self) -> None: ...

    monkeypatch.setattr(basereload, "get_subprocess", lambda **_: Starting())
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    reloader = _Reloader(Config("llamastack", log_config=None, reload_delay=0), lambda _: None, [], [tmp_path])
    reloader.process = Starting()  # type: ignore[assignment]
    getattr(reloader, method)()
    assert reloader.should_restart() == [file]
    reloader.restart()
    assert reloader.should_restart() == [file]
