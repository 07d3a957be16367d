"""TLS to a backend that fails, in every way and for every provider; and an authority of one's own that is trusted."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from backends.certificates import self_signed
from backends.scripted_http import CLOSE, ScriptedHttp, answer, scripted_http, served_by, sse
from click.testing import CliRunner
from served_stack import served_stack

from llamastack import LlamaStackClient, Stack
from llamastack.api import Model, ProviderStatus, UserMessage
from llamastack.provider.errors import LlamaStackError, ProviderUnavailableError
from llamastack_adapters.remote_inference import AnswersConfig
from llamastack_cli.group import cli

pytestmark = pytest.mark.anyio
ASK = [UserMessage(content="Hi")]
CHUNK = {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
WORDS = {
    "self-signed": r"TLS failed \(self-signed certificate\) at ",
    "expired": r"TLS failed \((certificate has expired|self-signed certificate)\) at ",
    "wrong host": r"TLS failed \(.*(IP address mismatch|not valid for).*\) at ",
    "https to a plain port": r"TLS failed \(no TLS is spoken there: .*\) at ",
}


def scripted(backend: ScriptedHttp) -> ScriptedHttp:
    backend.routes["/chat/completions"] = lambda request: (
        sse(CHUNK, "[DONE]") if request.json.get("stream") else answer(200, WHOLE)
    )
    backend.routes["/info"] = answer(200, {"model_id": "m", "max_total_tokens": 4096})
    return backend


class ConfigIssue:
    """A backend with which TLS fails. url: of it. ca_file: to trust, where that is no remedy."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        context: ssl.SSLContext | None = None
        self.ca_file: Path | None = None
        if kind == "wrong host":
            context, self.ca_file = self_signed(folder, host="elsewhere.example")
        elif kind == "expired":
            context, self.ca_file = self_signed(folder, expired=True)
        elif kind == "self-signed":
            context, _ = self_signed(folder)
        self.tls = context


@pytest.fixture(params=list(WORDS))
def fault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ScriptedHttp, str, dict[str, Any]]]:
    """The backend, what is told of it, and further config."""
    made = ConfigIssue(request.param, tmp_path)
    # What a server makes of a greeting by TLS.
    greeting = () if made.tls else [b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", CLOSE]
    with scripted_http(tls=made.tls, greeting=greeting) as backend:
        scripted(backend)
        backend.url = backend.url.replace("http://", "https://")
        yield backend, WORDS[made.kind], {} if made.ca_file is None else {"ca_file": str(made.ca_file)}


async def reason_of(stack: Stack) -> str:
    with anyio.fail_after(10):
        while True:
            [provider] = (await stack.inspect.health()).providers
            if provider.status is ProviderStatus.down:
                return str(provider.reason)
            await anyio.sleep(0.02)


async def test_a_failure_is_told_in_calls_and_in_health(
    fault: tuple[ScriptedHttp, str, dict[str, Any]], transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend, words, more = fault
    url = re.escape(backend.url)
    instance = served_by(backend, api_key="k", **more)
    async with served_stack({"providers": {"inference": [instance]}}) as (stack, client):
        assert re.fullmatch(words + url, await reason_of(stack))
        provider = stack.instances["inference"][0].provider
        for stream in (False, True):
            with pytest.raises(ProviderUnavailableError, match=words + url):
                await provider.chat_completion(model="m", messages=ASK, stream=stream)
            body = {"model": "p/m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
            refused = await client.post("/v1/chat/completions", json=body)
            assert refused.status_code in (404, 503)  # no listing has shown the model
    assert "AttributeError" not in caplog.text


async def test_our_own_client_tells_it_too(fault: tuple[ScriptedHttp, str, dict[str, Any]], transport: str) -> None:
    backend, words, more = fault
    async with LlamaStackClient(backend.url, **{n: Path(v) for n, v in more.items()}) as client:
        for stream in (False, True):
            with pytest.raises(ProviderUnavailableError, match=words + re.escape(backend.url)):
                await client.inference.chat_completion(model="m", messages=ASK, stream=stream)


def test_the_command_line_tells_it_too(tmp_path: Path) -> None:
    context, _ = self_signed(tmp_path)
    with scripted_http(tls=context) as backend:
        shown = CliRunner().invoke(cli, ["models", "list", "--url", backend.url])
    assert shown.exit_code != 0
    assert f"TLS failed (self-signed certificate) at {backend.url}" in shown.output


@pytest.mark.parametrize("provider_type", ["remote::openai", "remote::vllm", "remote::tgi", "remote::ollama", "remote"])
async def test_every_remote_provider_tells_it(tmp_path: Path, provider_type: str) -> None:
    context, _ = self_signed(tmp_path)
    config = {"api_key": "k"} if provider_type == "remote::openai" else {}
    with scripted_http(tls=context) as backend:
        instance = served_by(scripted(backend), provider_type, path="", **config)
        async with Stack.from_config({"providers": {"inference": [instance]}}) as stack:
            assert await reason_of(stack) == f"TLS failed (self-signed certificate) at {backend.url}"


_AWS = {"region_name": "us-east-1", "aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret-of-it"}


async def test_bedrock_tells_it_and_trusts_an_authority_of_ones_own(tmp_path: Path) -> None:
    context, file = self_signed(tmp_path)
    with scripted_http(tls=context) as backend:
        backend.default = answer(200, {"modelSummaries": [], "inferenceProfileSummaries": []})
        config: dict[str, Any] = {**_AWS, "endpoint_url": backend.url, "models": {"m": "m"}}
        for ca_file in (None, str(file)):
            instance = {
                "provider_id": "p",
                "provider_type": "remote::bedrock",
                "config": {**config, "ca_file": ca_file},
            }
            async with Stack.from_config({"providers": {"inference": [instance]}}) as stack:
                if ca_file is None:
                    assert await reason_of(stack) == f"TLS failed (self-signed certificate) at {backend.url}"
                else:
                    [provider] = (await stack.inspect.health()).providers
                    assert provider.status is ProviderStatus.healthy, provider.reason


async def test_qdrant_tells_it_and_trusts_an_authority_of_ones_own(tmp_path: Path) -> None:
    context, file = self_signed(tmp_path)
    embeds = {"provider_id": "e", "provider_type": "remote::sample"}
    with scripted_http(tls=context) as backend:
        backend.default = answer(200, {"result": {"collections": []}, "status": "ok", "time": 0})
        for ca_file in (None, str(file)):
            memory = {
                "provider_id": "q",
                "provider_type": "remote::qdrant",
                "config": {"url": backend.url, "ca_file": ca_file},
            }
            run = {"providers": {"inference": [embeds], "memory": [memory]}}
            async with Stack.from_config(run) as stack:
                await stack.instances["memory"][0].refresh(force=True)
                [shown] = [one for one in (await stack.inspect.health()).providers if one.provider_id == "q"]
                if ca_file is None:
                    assert f"TLS failed (self-signed certificate) at {backend.url}" in str(shown.reason)
                else:
                    assert shown.status is ProviderStatus.healthy, shown.reason


@asynccontextmanager
async def trusting(tls: ssl.SSLContext, provider_type: str, **config: Any) -> AsyncIterator[tuple[Stack, ScriptedHttp]]:
    with scripted_http(tls=tls) as backend:
        instance = served_by(scripted(backend), provider_type, **config)
        async with Stack.from_config({"providers": {"inference": [instance]}}) as stack:
            yield stack, backend


@pytest.mark.parametrize("provider_type", ["remote::openai", "remote::vllm", "remote::tgi"])
async def test_an_authority_of_ones_own_is_trusted(tmp_path: Path, provider_type: str, transport: str) -> None:
    context, file = self_signed(tmp_path)
    path = "" if provider_type == "remote::tgi" else "/v1"
    key = {"api_key": "k"} if provider_type == "remote::openai" else {}
    async with trusting(context, provider_type, path=path, ca_file=str(file), **key) as (stack, _):
        reply = await stack.inference.chat_completion(model="m", messages=ASK)
        assert reply.completion_message.content == "Hello"
        assert [chunk async for chunk in await stack.inference.chat_completion(model="m", messages=ASK, stream=True)]


async def test_an_authority_of_ones_own_is_trusted_by_ollama_and_the_passthrough(tmp_path: Path) -> None:
    context, file = self_signed(tmp_path)
    with scripted_http(tls=context) as backend:
        backend.routes["/api/tags"] = answer(200, {"models": [{"model": "m", "digest": "d"}]})
        backend.routes["/api/ps"] = answer(200, {"models": []})
        backend.routes["/api/show"] = answer(200, {"capabilities": ["completion"]})
        instance = served_by(backend, "remote::ollama", path="", ca_file=str(file))
        async with Stack.from_config({"providers": {"inference": [instance]}}) as stack:
            assert [model.identifier for model in await stack.models.list_models()] == ["m"]
    with scripted_http(tls=context) as backend:
        backend.routes["/inspect/health"] = backend.routes["/health"] = answer(200, {"status": "OK", "providers": []})
        listed = Model(identifier="m", provider_id="x").model_dump_json()
        backend.lists = False
        backend.routes["/models/list"] = answer(200, b"[" + listed.encode() + b"]")
        instance = served_by(backend, "remote", path="", ca_file=str(file))
        async with Stack.from_config({"providers": {"inference": [instance]}}) as stack:
            assert [model.identifier for model in await stack.models.list_models()] == ["m"]


def test_a_file_that_cannot_be_used_is_a_fault_of_the_config(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for file, words in ((broken, "holds no certificates in PEM"), (tmp_path / "gone.pem", "no such file")):
        with pytest.raises(ValueError, match=words):
            AnswersConfig(ca_file=file)
        run = tmp_path / "run.yaml"
        provider = {
            "provider_id": "p",
            "provider_type": "remote::openai",
            "config": {"url": "https://127.0.0.1:1", "api_key": "k", "ca_file": str(file)},
        }
        run.write_text(json.dumps({"providers": {"inference": [provider]}}))
        shown = CliRunner().invoke(cli, ["config", "validate", str(run)])
        assert shown.exit_code != 0
        assert "ca_file" in shown.output
        assert words in shown.output


async def test_https_to_a_port_that_says_nothing(transport: str) -> None:
    with scripted_http() as backend:  # it waits for the end of a line, which a greeting by TLS has not
        backend.url = backend.url.replace("http://", "https://")
        instance = served_by(backend, api_key="k", connect_timeout_s=0.3)
        async with Stack.from_config({"providers": {"inference": [instance]}}) as stack:
            assert await reason_of(stack) == f"no connection was made in time at {backend.url}"


async def test_http_to_a_port_of_tls(tmp_path: Path, transport: str) -> None:
    context, _ = self_signed(tmp_path)
    with scripted_http(tls=context) as backend:
        backend.url = backend.url.replace("https://", "http://")
        instance = served_by(backend, api_key="k", models={"m": "m"})
        async with Stack.from_config({"providers": {"inference": [instance]}}) as stack:
            reason = await reason_of(stack)
            assert re.fullmatch(
                r"(the connection was closed without an answer|something else than HTTP was answered|"
                r"connection reset by peer) at " + re.escape(backend.url),
                reason,
            )
            with pytest.raises(LlamaStackError) as caught:
                await stack.instances["inference"][0].provider.chat_completion(model="m", messages=ASK)
            assert caught.value.status in (502, 503)
