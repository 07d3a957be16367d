"""The second line of the access log: one for each call of a provider, where it is asked for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from installed_fakes import install
from running_server import running_server

from llamastack.provider.provider_call import CallEvent
from llamastack_server.call_log import CallLog, line_of
from llamastack_server.call_log_plugin import PLUGIN

EVENT = CallEvent("1", None, "inference", "chat_completion", "m", "foo", "remote::tgi", "r")._replace(
    status="ok", duration_s=0.812, first_piece_s=0.0951, input_tokens=21, output_tokens=130
)


def test_a_line_has_what_is_known(caplog: pytest.LogCaptureFixture) -> None:
    line = "chat_completion m at foo (remote::tgi) ok 812.0 ms, first piece 95.1 ms, tokens 21 in 130 out"
    with caplog.at_level(logging.INFO, "llamastack.access"):
        CallLog().llamastack_call_finished(EVENT)
    assert caplog.messages == [line]
    bare = EVENT._replace(
        first_piece_s=None, input_tokens=None, identifier="", status="error", error_code="rate_limited"
    )
    assert line_of(bare) == "chat_completion inference at foo (remote::tgi) rate_limited 812.0 ms"


def test_it_is_off_and_has_no_hook_then() -> None:
    assert not hasattr(PLUGIN, "llamastack_call_finished")


def test_a_server_writes_it_where_it_is_asked_for(tmp_path: Path, own_home: Path) -> None:
    import httpx

    site = tmp_path / "site"
    install(site, "again", {"llamastack.plugins": {"again": "llamastack_server.call_log_plugin:PLUGIN"}})
    config = tmp_path / "run.yaml"
    config.write_text(
        "providers: {safety: [{provider_id: far, provider_type: 'remote::sample'}]}\nstore: {type: memory}\n"
    )
    environment = {"PYTHONPATH": str(site), "LLAMASTACK_LOG_CALLS": "1"}
    with running_server(config, home=own_home, environment=environment) as server:
        [shield] = httpx.get(f"{server.url}/shields/list").json()
        body = {"shield_type": shield["identifier"], "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"X-Request-ID": "my-own"}
        assert httpx.post(f"{server.url}/safety/run_shield", json=body, headers=headers).status_code == 200
        assert server.stop() == 0
    called = [line for line in server.output if " at far (remote::sample) ok " in line]
    assert len(called) == 1
    assert "INFO llamastack.access [my-own] run_shield" in called[0]
