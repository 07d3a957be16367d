"""Real `llamastack run` processes that share one store, and what tests ask of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from installed_fakes import SCRIPTED, install
from running_server import RunningServer, running_server

RUN = """\
providers:
  inference:
  - {{provider_id: a, provider_type: scripted}}
store: {{type: sqlite, config: {{path: "{folder}/registry.sqlite"}}}}
"""


@dataclass
class ServerOnFile:
    """One of the servers. Its provider takes every model, and serves only `m` by itself."""

    running: RunningServer
    http: httpx.Client

    def register(self, name: str) -> None:
        self._post("models/register", model={"identifier": name, "provider_id": "a"}).raise_for_status()

    def unregister(self, name: str) -> None:
        self._post("models/unregister", identifier=name).raise_for_status()

    def status_of_call(self, name: str) -> int:
        """The HTTP status of a chat with a model."""
        messages = [{"role": "user", "content": "x"}]
        return self._post("inference/chat_completion", model=name, messages=messages).status_code

    def listed(self) -> set[str]:
        """The models that it says it can serve, without its provider's own."""
        models = self.http.get("models/list").raise_for_status().json()
        return {model["identifier"] for model in models if not model.get("unavailable_reason")} - {"m"}

    def _post(self, path: str, **body: object) -> httpx.Response:
        return self.http.post(path, json=body)


@contextmanager
def server_on_file(folder: Path) -> Iterator[ServerOnFile]:
    """A server process on the store in `folder`."""
    site, config = folder / "site", folder / "run.yaml"
    if not config.exists():
        install(site, "llamastack-provider-scripted", SCRIPTED)
        config.write_text(RUN.format(folder=folder))
    environment = {"PYTHONPATH": os.pathsep.join((str(site), str(Path(__file__).parent)))}
    with (
        running_server(config, home=folder / "home", environment=environment) as running,
        httpx.Client(base_url=running.url, timeout=20) as http,
    ):
        yield ServerOnFile(running, http)
