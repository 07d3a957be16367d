"""The server that a template's tests start: it says where it listens, or ends with the error."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import llamastack_provider_template

VARIANT = Path(llamastack_provider_template.__file__).parent / "variants" / "memory-rest" / "backend.py.jinja"
BACKENDS = sorted(VARIANT.parent.parent.rglob("*backend*.jinja"))
SERVES = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_): ...

def cli(arguments):
    server = HTTPServer(("127.0.0.1", int(arguments[arguments.index("--port") + 1])), Answers)
    server.handle_request()
    server.server_close()
"""
DIES = """
def cli(arguments):
    print("the folder is locked", flush=True)
    raise SystemExit(3)
"""


def run(folder: Path, server: str, port: int = 0) -> subprocess.CompletedProcess[str]:
    """backend.py with a module in the place of Chroma's server."""
    (folder / "chromadb_rust_bindings.py").write_text(server)
    program = folder / "backend.py"
    program.write_text(VARIANT.read_text(encoding="utf-8"))
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, str(program), str(port)]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)


def test_it_says_where_it_listens(tmp_path: Path) -> None:
    done = run(tmp_path, SERVES)
    assert done.stdout.startswith("listening on http://127.0.0.1:")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_that_ends_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, DIES)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the server ended with status 3\nthe folder is locked\n\n"


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(tmp_path, SERVES, taken.getsockname()[1])
    assert (done.returncode, done.stdout) == (1, "")
    assert "Address already in use" in done.stderr


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda file: file.parent.name)
def test_no_other_backend_starts_a_process_of_its_own(backend: Path) -> None:
    """One that does needs the tests above."""
    assert ("Popen" in backend.read_text(encoding="utf-8")) == (backend == VARIANT)
