"""HttpBackend.all_lines: a stream of lines that is read as one answer."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from backends.scripted_http import CLOSE, HOLD, ScriptedHttp, Steps, answer, chunked

from llamastack.provider.errors import BackendError, LlamaStackError, RateLimitError
from llamastack_adapters.backend import HttpBackend
from llamastack_adapters.remote_inference import RemoteConfig

pytestmark = pytest.mark.anyio
ONE, LAST = b'{"n":1}\n', b'{"n":2,"done":true}\n'
BOTH = [{"n": 1}, {"n": 2, "done": True}]


async def asked(backend: ScriptedHttp, **config: Any) -> list[dict[str, Any]]:
    http = HttpBackend(backend.url, RemoteConfig(**config))
    try:
        with anyio.fail_after(5):
            return await http.all_lines("/x", {"a": 1}, lambda line: line.get("done"))
    finally:
        await http.aclose()


def lines(*blocks: Any) -> Steps:
    return chunked(*blocks, content_type="application/x-ndjson")


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        (answer(200, ONE + LAST, content_type="application/x-ndjson"), BOTH),
        (lines(ONE, 0.02, LAST), BOTH),
        (lines(ONE + LAST[:5], 0.02, LAST[5:]), BOTH),
        (lines(b"\n" + ONE + b" \r\n" + LAST.rstrip()), BOTH),
        (lines(ONE, LAST + b"no JSON\n"), BOTH),
        (lines(ONE, LAST, HOLD), BOTH),
        (lines(ONE, LAST, CLOSE), BOTH),
        (lines(ONE), BOTH[:1]),
        (lines(), []),
    ],
    ids=["whole", "slow", "cut", "empty-lines", "more-after-it", "held-after-it", "cut-after-it", "no-last", "nothing"],
)
async def test_lines(scripted_backend: ScriptedHttp, steps: Steps, found: list[Any]) -> None:
    scripted_backend.answers.append(steps)
    assert await asked(scripted_backend) == found


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lines(ONE, b"no JSON\n"), "cannot be understood"),
        (lines(b"[1]\n"), "cannot be understood"),
        (lines(ONE, CLOSE), "cut short"),
        (lines(ONE, b'{"error":"out of memory"}\n'), "out of memory"),
        (lines(b'{"n":"' + b"x" * 3000, 0.02, b'"}\n'), "more than 2000 bytes"),
        (answer(500, {"error": "broken"}), "broken"),
    ],
)
async def test_failures(scripted_backend: ScriptedHttp, steps: Steps, message: str) -> None:
    scripted_backend.answers.append(steps)
    with pytest.raises(LlamaStackError, match=message) as raised:
        await asked(scripted_backend, max_event_bytes=2000)
    assert isinstance(raised.value, BackendError)


async def test_a_rate_limit_is_waited_for(scripted_backend: ScriptedHttp) -> None:
    refused = answer(429, {"error": "slow down"}, headers={"Retry-After": "0"})
    scripted_backend.answers.extend([refused, lines(ONE, LAST)])
    assert await asked(scripted_backend) == BOTH
    scripted_backend.answers.append(refused)
    with pytest.raises(RateLimitError):
        await asked(scripted_backend, max_retries=0)


async def test_the_connection_is_used_again(scripted_backend: ScriptedHttp) -> None:
    scripted_backend.default = lines(ONE, LAST)
    http = HttpBackend(scripted_backend.url, RemoteConfig())
    for _ in range(3):
        assert await http.all_lines("/x", {}, lambda line: line.get("done")) == BOTH
    await http.aclose()
    assert scripted_backend.connections == 1
