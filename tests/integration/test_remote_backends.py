"""A real `llamastack run` before real backends: several instances, clients' keys, clients that go away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import yaml
from backends.fault_proxy import FaultProxy
from backends.llama_server import MODEL, LlamaServer
from backends.openai_front import OpenAIFront, refusal
from running_server import RunningServer, running_server

from llamastack import LlamaStackClient, Stack
from llamastack.api import Model, SamplingParams, UserMessage
from llamastack.provider.context import PROVIDER_DATA_HEADER, use_provider_data
from llamastack.provider.errors import AuthenticationError, ObjectNotFoundError

pytestmark = pytest.mark.anyio
Front = Callable[..., tuple[OpenAIFront, str]]
ASK = [UserMessage(content="What is the capital of France?")]
SHORT = SamplingParams(max_tokens=8)
LONG = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Count from one to one thousand, in words."}],
    "sampling_params": {"max_tokens": 1500},
}


def instances(urls: dict[str, str], **config: Any) -> dict[str, Any]:
    """A run config with one instance of remote::openai per URL."""
    made = [
        {"provider_id": name, "provider_type": "remote::openai", "config": {"url": url, **config}}
        for name, url in urls.items()
    ]
    return {"providers": {"inference": made}}


# ---- several instances -------------------------------------------------------------------------------------------


async def test_each_model_goes_to_the_instance_that_serves_it(front: Front) -> None:
    foo, foo_url = front(models=[MODEL, "only-foo"])
    bar, bar_url = front(models=["only-bar", MODEL])
    async with Stack.from_config(instances({"foo": foo_url, "bar": bar_url})) as stack:

        async def asked(model: str) -> list[tuple[int, int]]:
            before = len(foo.seen), len(bar.seen)
            await stack.inference.chat_completion(model=model, messages=[*ASK], sampling_params=SHORT)
            return [(len(foo.seen) - before[0], len(bar.seen) - before[1])]

        assert await asked("only-foo") == [(1, 0)]
        assert await asked("only-bar") == [(0, 1)]
        assert await asked(MODEL) == [(1, 0)]
        assert await asked(f"bar/{MODEL}") == [(0, 1)]
        assert await asked(f"foo/{MODEL}") == [(1, 0)]
        with pytest.raises(ObjectNotFoundError):
            await asked("foo/only-bar")
        listed = [(model.provider_id, model.identifier) for model in await stack.models.list_models()]
        assert listed == [("foo", MODEL), ("foo", "only-foo"), ("bar", "only-bar"), ("bar", MODEL)]


async def test_a_public_name_moves_between_backends(front: Front) -> None:
    foo, foo_url = front(models=["foos-name"])
    bar, bar_url = front(models=["bars-name"])
    urls = {"foo": foo_url, "bar": bar_url}
    for where, name, there in (("foo", "foos-name", foo), ("bar", "bars-name", bar)):
        config = instances(urls)
        place = list(urls).index(where)
        config["providers"]["inference"][place]["config"]["models"] = {"assistant": name}
        async with Stack.from_config(config) as stack:
            await stack.inference.chat_completion(model="assistant", messages=[*ASK], sampling_params=SHORT)
            assert there.last("/chat/completions").body["model"] == name


async def test_what_a_client_registered_with_its_own_key_is_there_after_a_restart(front: Front, tmp_path: Path) -> None:
    made, url = front(keys={"sk-client"})
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**instances({"p": url}), "store": {"type": "sqlite"}}))
    with use_provider_data({"openai_api_key": "sk-client"}):
        async with Stack.from_config(file) as stack:
            await stack.models.register_model(Model(identifier=MODEL))
    async with Stack.from_config(file) as stack:
        [model] = await stack.models.list_models()
        assert (model.identifier, model.unavailable_reason) == (MODEL, None)
        with use_provider_data({"openai_api_key": "sk-client"}):
            await stack.inference.chat_completion(model=MODEL, messages=[*ASK], sampling_params=SHORT)
        with pytest.raises(AuthenticationError):
            await stack.inference.chat_completion(model=MODEL, messages=[*ASK], sampling_params=SHORT)
    assert not made.answers


# ---- over HTTP ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, own_home: Path) -> Iterator[Callable[[dict[str, Any]], RunningServer]]:
    """Run a config in a process of its own."""
    from contextlib import ExitStack

    with ExitStack() as opened:

        def start(config: dict[str, Any]) -> RunningServer:
            file = tmp_path / "run.yaml"
            file.write_text(yaml.safe_dump(config))
            return opened.enter_context(running_server(file, home=own_home))

        yield start


async def test_a_client_that_hangs_up_stops_the_generation(
    front: Front, run: Callable[[dict[str, Any]], RunningServer], llama: LlamaServer
) -> None:
    _, url = front()
    server = run(instances({"p": url}))
    for stream in (True, False):
        async with httpx.AsyncClient(timeout=30) as http:
            request = http.build_request(
                "POST", f"{server.url}/inference/chat_completion", json={**LONG, "stream": stream}
            )
            async with anyio.create_task_group() as group:

                async def ask(request: httpx.Request = request, http: httpx.AsyncClient = http) -> None:
                    response = await http.send(request, stream=True)
                    async for _ in response.aiter_bytes():
                        pass

                group.start_soon(ask)
                with anyio.fail_after(20):
                    while not await anyio.to_thread.run_sync(llama.working_on):
                        await anyio.sleep(0.02)
                group.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(llama.becomes_idle, 5)


async def test_a_stream_that_breaks_is_an_error_event(
    front: Front, faulty: Callable[[str], FaultProxy], run: Callable[[dict[str, Any]], RunningServer]
) -> None:
    _, url = front()
    proxy = faulty(url)
    server = run(instances({"p": f"{proxy.url}/v1"}))
    proxy.cut_after = 1500
    proxy.drop_idle()
    async with httpx.AsyncClient(timeout=30) as http:
        response = await http.post(f"{server.url}/inference/chat_completion", json={**LONG, "stream": True})
    data = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]
    assert response.status_code == 200
    assert [event["event"]["event_type"] for event in data[:2]] == ["start", "progress"]
    error = data[-1]["error"]
    assert (error["code"], error["provider_id"]) == ("backend_error", "p")
    assert "the answer was cut short" in error["message"]


async def test_a_rate_limit_reaches_the_client_with_its_time(
    front: Front, run: Callable[[dict[str, Any]], RunningServer]
) -> None:
    made, url = front()
    server = run(instances({"p": url}))
    made.answers.append(refusal(429, "slow down", retry_after=90))
    async with httpx.AsyncClient(timeout=30) as http:
        started = time.monotonic()
        response = await http.post(f"{server.url}/inference/chat_completion", json=LONG)
        assert time.monotonic() - started < 5
    assert (response.status_code, response.headers["retry-after"]) == (429, "90")
    assert response.json()["error"]["provider_id"] == "p"


async def test_keys_are_in_nothing_that_the_server_says(
    front: Front, run: Callable[[dict[str, Any]], RunningServer]
) -> None:
    secrets = {"sk-operator-81b7", "sk-client-40f2", "sk-refused-77aa"}
    _, url = front(keys={"sk-operator-81b7", "sk-client-40f2"})
    server = run(instances({"p": url}, api_key="sk-operator-81b7"))
    printed = ""
    async with httpx.AsyncClient(timeout=30) as http:
        for key, status in (("sk-client-40f2", 200), ("sk-refused-77aa", 401), ("sk-refused\n-77aa", 400)):
            headers = {PROVIDER_DATA_HEADER: json.dumps({"openai_api_key": key})}
            body = {**LONG, "sampling_params": {"max_tokens": 3}}
            response = await http.post(f"{server.url}/inference/chat_completion", json=body, headers=headers)
            assert response.status_code == status
            printed += response.text
        for path in ("/providers/list", "/health", "/models/list", "/routes/list"):
            printed += (await http.get(server.url + path)).text
    async with LlamaStackClient(server.url, provider_data={"openai_api_key": "sk-refused-77aa"}) as client:
        with pytest.raises(
            AuthenticationError, match=f"'openai_api_key' in the header {PROVIDER_DATA_HEADER}"
        ) as caught:
            await client.inference.chat_completion(model=MODEL, messages=[*ASK], stream=True)
        assert (caught.value.param, caught.value.provider_id) == (f"{PROVIDER_DATA_HEADER}.openai_api_key", "p")
        printed += repr(caught.value)
    assert server.stop() == 0
    printed += "".join(server.output)
    assert "401" in printed
    assert not [secret for secret in secrets if secret in printed]
