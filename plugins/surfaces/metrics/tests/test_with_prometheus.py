"""A real Prometheus scrapes a real server, and answers each expression of the dashboard and of the rules.

It runs where `prometheus` is installed (`apt-get install prometheus`); `make prometheus` says so where it is not.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from promql_expressions import dashboard_expressions, rule_expressions, rules
from running_server import running_server
from worker_processes import wait_until

from llamastack_metrics.commands import RULES

pytestmark = [
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not installed: apt-get install prometheus"
    ),
    pytest.mark.xdist_group("metrics of workers"),
]
SAMPLE = 'providers:\n  inference:\n  - {provider_id: foo, provider_type: "remote::sample", config: {models: [a]}}\n'
CHAT = {"model": "a", "messages": [{"role": "user", "content": "Hi"}]}
# Of what this server has no series: jobs, traces, registrations, tokens, errors.
WITHOUT_RESULT = re.compile(r"cost_total|jobs|spans|registrations|tokens|5\.\.|!~")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes `target` each second; gives a client of its HTTP API."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{RULES}']\n"
        f"scrape_configs:\n- job_name: llamastack\n  static_configs:\n  - targets: ['{target}']\n"
    )
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with folder.joinpath("prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=20) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


def result_of(client: httpx.Client, expression: str) -> list[Any]:
    reply = client.get("/api/v1/query", params={"query": expression}).json()
    assert reply["status"] == "success", (expression, reply)
    found: list[Any] = reply["data"]["result"]
    return found


def has_result(client: httpx.Client, expression: str) -> bool:
    try:
        if client.get("/-/ready").status_code != 200:
            return False  # it still starts
        return bool(result_of(client, expression))
    except httpx.TransportError:
        return False  # it does not listen yet


def without_variables(expression: str) -> str:
    return re.sub(r"\$(?!__)\w+", ".*", expression).replace("$__rate_interval", "1m")


def test_every_expression_is_answered(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"{SAMPLE}server: {{workers: 2}}\n")
    with (
        running_server(config, home=tmp_path) as server,
        prometheus(tmp_path, server.url.removeprefix("http://")) as client,
    ):
        wait_until(lambda: has_result(client, "llamastack_workers"), 60)
        for _ in range(5):
            httpx.post(f"{server.url}/inference/chat_completion", json=CHAT)
            httpx.post(f"{server.url}/inference/chat_completion", json={**CHAT, "stream": True})
            httpx.get(f"{server.url}/nowhere")
        wait_until(lambda: has_result(client, "sum(llamastack_provider_calls_total) == 10"), 30)
        wait_until(lambda: has_result(client, "count_over_time(llamastack_provider_calls_total[1m]) > 5"), 60)
        wait_until(lambda: has_result(client, "llamastack:provider_calls:rate5m"), 30)
        empty = [each for each in map(without_variables, dashboard_expressions()) if not result_of(client, each)]
        assert [each for each in empty if not WITHOUT_RESULT.search(each)] == []
        for each in rule_expressions():
            result_of(client, each)
        states = client.get("/api/v1/rules").json()["data"]["groups"]
        assert {rule["health"] for group in states for rule in group["rules"]} == {"ok"}
        assert sum(len(group["rules"]) for group in states) == len(rules())
        [target] = client.get("/api/v1/targets").json()["data"]["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
