"""The openai package takes the stand-in for Azure OpenAI for Azure: tests before it are worth something."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from backends.azure import API_VERSION, CUT, DEPLOYMENT, FILTERED, KEY, azure_stand_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("openai_clients")]
SCRIPTS = Path(__file__).with_name("openai_clients")


def test_both_surfaces_answer_the_openai_package(locked_python: Callable[[Path], Path], tmp_path: Path) -> None:
    python = locked_python(SCRIPTS / "clients.lock")
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", "PYTHONPATH": str(SCRIPTS)}
    with azure_stand_in() as azure:
        known = {"key": KEY, "deployment": DEPLOYMENT, "api_version": API_VERSION, "filtered": FILTERED, "cut": CUT}
        done = subprocess.run(
            [python, SCRIPTS / "azure_calls.py", json.dumps({"url": azure.url, **known})],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (done.returncode, done.stdout) == (0, "both surfaces answer the client\n"), done.stderr
        assert "reached out to" not in done.stderr
        asked = {request.path.partition("?")[0] for request in azure.received}
        assert any(path.startswith("/openai/deployments/") for path in asked)
        assert any(path.startswith("/openai/v1/") for path in asked)
