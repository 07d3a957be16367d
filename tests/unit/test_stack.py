"""A stack while it runs: routing, what is served, faults of providers, starting and stopping."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from scripted_stacks import Scripted, Scripts

from llamastack.api import ImageMedia, ProviderProgress, ToolResponseMessage, UserMessage
from llamastack.provider import Progress
from llamastack.provider.context import use_provider_data
from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    InternalError,
    InvalidRequestError,
    NotSupportedError,
    ObjectNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from llamastack.stack import ConfigError, Stack, StackStartError
from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio
HELLO = [UserMessage(content="Hello")]


async def answer_of(stack: Stack, model: str, **more: Any) -> str:
    reply = await stack.inference.chat_completion(model=model, messages=HELLO, **more)
    return str(reply.completion_message.content)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.01)


# ---- names ----------------------------------------------------------------------------------------------------------


async def test_each_model_goes_to_the_provider_that_serves_it(scripted: Scripted, script: Scripts) -> None:
    script("a", serves=["x"])
    script("b", serves=["y"])
    async with scripted("a", "b") as stack:
        assert await answer_of(stack, "x") == "a"
        assert await answer_of(stack, "y") == "b"


async def test_a_plain_name_goes_to_the_first_and_a_full_name_to_each(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=["m"])
    b = script("b", serves=["m"])
    async with scripted("a", "b") as stack:
        assert [await answer_of(stack, name) for name in ("m", "a/m", "b/m")] == ["a", "a", "b"]
        assert a.last("chat_completion")["model"] == b.last("chat_completion")["model"] == "m"
        assert [(m.provider_id, m.identifier) for m in await stack.models.list_models()] == [("a", "m"), ("b", "m")]


async def test_identifiers_may_hold_slashes(scripted: Scripted, script: Scripts) -> None:
    script("a", serves=["meta-llama/Llama-3.2-1B"])
    async with scripted("a") as stack:
        assert await answer_of(stack, "meta-llama/Llama-3.2-1B") == "a"
        assert await answer_of(stack, "a/meta-llama/Llama-3.2-1B") == "a"


async def test_what_is_not_served_is_refused_with_what_is(scripted: Scripted, script: Scripts) -> None:
    script("a", serves=["x", "y"])
    async with scripted("a") as stack:
        with pytest.raises(ObjectNotFoundError, match="no model 'z' is served. Served: x, y") as caught:
            await answer_of(stack, "z")
        assert caught.value.param == "model"
        assert caught.value.status == 404
        assert await stack.models.get_model("z") is None


async def test_a_model_that_appears_later_works_without_restart(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=["x"])
    async with scripted("a") as stack:
        a.serves.append("new")
        await anyio.sleep(1.01)  # providers are not asked again within a second
        assert await answer_of(stack, "new") == "a"


async def test_a_model_that_vanishes_stops_being_listed(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=["x", "y"])
    async with scripted("a", refresh_interval_s=0.05) as stack:
        a.serves.remove("x")
        await until(lambda: "x" not in stack.instances["inference"][0].served)
        assert [m.identifier for m in await stack.models.list_models()] == ["y"]
        with pytest.raises(ObjectNotFoundError):
            await answer_of(stack, "x")


async def test_many_misses_at_once_ask_a_provider_once(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=["x"])
    async with scripted("a") as stack:
        await anyio.sleep(1.01)
        before = len([c for c in a.calls if c[0] == "list"])

        async def miss() -> None:
            with pytest.raises(ObjectNotFoundError):
                await answer_of(stack, "nope")

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(miss)
        assert len([c for c in a.calls if c[0] == "list"]) == before + 1


# ---- arguments ------------------------------------------------------------------------------------------------------


async def test_arguments_are_validated_in_process_too(scripted: Scripted, script: Scripts) -> None:
    script("a")
    async with scripted("a") as stack:
        with pytest.raises(InvalidRequestError) as caught:
            await stack.inference.chat_completion(model="m", messages=[{"role": "user", "content": 5}])
        assert caught.value.param == "messages[0].content"
        with pytest.raises(InvalidRequestError, match="mood: unknown field"):
            await stack.inference.chat_completion(model="m", messages=HELLO, mood="good")
        assert await answer_of(stack, "m")


async def test_plain_dicts_become_types(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    async with scripted("a") as stack:
        await stack.inference.chat_completion("m", [{"role": "user", "content": "Hi"}])
        assert a.last("chat_completion")["messages"] == [UserMessage(content="Hi")]


async def test_what_the_spec_says_is_not_there_is_refused_early(discovery: Discovery, script: Scripts) -> None:
    a = script("default")
    config = {"providers": {"inference": [{"provider_id": "n", "provider_type": "no-tools"}]}}
    async with Stack.from_config(config, discovery=discovery) as stack:
        with pytest.raises(NotSupportedError, match=r"does not support 'tools' of chat_completion") as caught:
            await answer_of(stack, "m", tools=[{"tool_name": "t"}])
        assert (caught.value.param, caught.value.provider_id) == ("tools", "n")
        with pytest.raises(NotSupportedError, match=r"does not support completion .*not implemented"):
            await stack.inference.completion(model="m", content="x")
        assert [c for c in a.calls if c[0] != "list"] == []
        assert await answer_of(stack, "m") == "n"


async def test_unknown_attributes_say_what_there_is(scripted: Scripted, script: Scripts) -> None:
    script("a")
    async with scripted("a") as stack:
        with pytest.raises(AttributeError, match="this stack has no API 'safety'; it has inference, models, inspect"):
            _ = stack.safety
        with pytest.raises(AttributeError, match="API 'inference' has no method 'sing'"):
            _ = stack.inference.sing
    with pytest.raises(AttributeError, match="not running"):
        _ = stack.inference


# ---- faults of providers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "translated", "says"),
    [
        (httpx.ConnectError("refused"), ProviderUnavailableError, r"provider 'a' \(scripted\) is down: refused"),
        (ConnectionResetError("reset"), ProviderUnavailableError, "reset"),
        (httpx.ReadTimeout("slow"), ProviderTimeoutError, r"provider 'a' \(scripted\): it did not answer in time"),
        (TimeoutError(), ProviderTimeoutError, "did not answer in time"),
        (httpx.RemoteProtocolError("bad"), BackendError, r"provider 'a' \(scripted\): bad"),
        (AuthenticationError("no key"), AuthenticationError, "no key"),
        (KeyError("x"), InternalError, r"provider 'a' \(scripted\) failed: KeyError$"),
    ],
)
async def test_every_exception_becomes_one_of_the_family(
    scripted: Scripted, script: Scripts, raised: Exception, translated: type[Exception], says: str
) -> None:
    script("a", fail_call=raised)
    async with scripted("a") as stack:
        with pytest.raises(translated, match=says) as caught:
            await answer_of(stack, "m")
        assert caught.value.provider_id == "a"  # type: ignore[attr-defined]


async def test_a_failure_in_mid_stream_is_translated(scripted: Scripted, script: Scripts) -> None:
    a = script("a", fail_after_pieces=1, fail_call=None)
    async with scripted("a") as stack:
        got = []
        with pytest.raises(InternalError, match="provider 'a'"):
            async for chunk in await stack.inference.chat_completion(model="m", messages=HELLO, stream=True):
                got.append(chunk.event.delta)
        assert got == ["", "0 "]
        assert a.closed_streams == 1


async def test_a_stream_that_is_left_is_closed_at_the_provider(scripted: Scripted, script: Scripts) -> None:
    a = script("a", pieces=1000, piece_delay_s=0.01)
    async with scripted("a") as stack:
        stream = await stack.inference.chat_completion(model="m", messages=HELLO, stream=True)
        async for _ in stream:
            break
        await stream.aclose()
        assert (a.in_flight, a.closed_streams) == (0, 1)


async def test_cancelling_a_call_cancels_the_provider(scripted: Scripted, script: Scripts) -> None:
    a = script("a", piece_delay_s=60)
    async with scripted("a") as stack:
        with anyio.move_on_after(0.05):
            await answer_of(stack, "m")
        assert a.in_flight == 0


async def test_secrets_stay_out_of_errors_and_logs(
    discovery: Discovery, script: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    script("default", fail_call=ValueError("key hunter2-config and hunter2-request refused"))
    config = {
        "providers": {
            "inference": [{"provider_id": "a", "provider_type": "scripted", "config": {"api_key": "hunter2-config"}}]
        }
    }
    with caplog.at_level(logging.DEBUG):
        async with Stack.from_config(config, discovery=discovery) as stack:
            with use_provider_data({"scripted_api_key": "hunter2-request"}), pytest.raises(InternalError) as caught:
                await answer_of(stack, "m")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caplog.text
    assert "key *** and *** refused" in caplog.text


async def test_provider_data_reaches_only_its_own_request(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    async with scripted("a") as stack:

        async def ask(key: str) -> None:
            with use_provider_data({"scripted_api_key": key, "of_another_provider": 1}):
                await answer_of(stack, "m")

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(ask, f"key-{number}")
        await answer_of(stack, "m")
        seen = [data.scripted_api_key if data else None for name, data in a.calls if name == "request_data"]
        assert sorted(seen[:-1]) == sorted(f"key-{n}" for n in range(20))
        assert seen[-1] is None
        with (
            use_provider_data({"scripted_api_key": 5}),
            pytest.raises(InvalidRequestError, match=r"X-LlamaStack-ProviderData\.scripted_api_key"),
        ):
            await answer_of(stack, "m")


# ---- starting and stopping ------------------------------------------------------------------------------------------


async def test_a_provider_that_cannot_start_stops_no_other_and_is_tried_again(
    scripted: Scripted, script: Scripts
) -> None:
    a = script("a", serves=["x"], fail_start=ConnectionRefusedError("refused at http://gpu-2:8080"))
    script("b", serves=["y"])
    async with scripted("a", "b") as stack:
        assert await answer_of(stack, "y") == "b"
        health = await stack.inspect.health()
        assert health.status == "DEGRADED"
        assert [(p.provider_id, p.status) for p in health.providers] == [("a", "down"), ("b", "healthy")]
        assert "refused at http://gpu-2:8080" in (health.providers[0].reason or "")
        with pytest.raises(ObjectNotFoundError, match="Note that provider 'a' is down"):
            await answer_of(stack, "x")
        a.fail_start = None
        await until(lambda: stack.instances["inference"][0].status == "healthy")
        assert await answer_of(stack, "x") == "a"
        assert a.shut_down == 1  # what had been made by the failed start was closed


@pytest.mark.parametrize(
    ("provider_type", "says"),
    [
        ("no-sdk", "No module named 'sdk_that_is_not_installed'"),
        ("incomplete", "register_model: must be 'async def'"),
        ("incomplete", "chat_completion: does not take 'messages', 'sampling_params', 'tools'"),
        ("incomplete", "completion: requires 'mood', which the stack need not pass"),
        ("incomplete", "embeddings: is missing"),
    ],
)
async def test_a_provider_that_is_none_is_down_with_the_reasons(
    discovery: Discovery, script: Scripts, provider_type: str, says: str
) -> None:
    script("b", serves=["y"])
    config = {
        "providers": {
            "inference": [
                {"provider_id": "a", "provider_type": provider_type},
                {"provider_id": "b", "provider_type": "scripted", "config": {"script": "b"}},
            ]
        }
    }
    async with Stack.from_config(config, discovery=discovery) as stack:
        health = await stack.inspect.health()
        assert says in (health.providers[0].reason or "")
        assert stack.instances["inference"][0].permanent
        assert await answer_of(stack, "y") == "b"


async def test_on_provider_error_fail_closes_what_had_started(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    script("b", fail_start=RuntimeError("no"))
    with pytest.raises(StackStartError, match=r"provider 'b' \(scripted\) is down: RuntimeError: no"):
        async with scripted("a", "b", on_provider_error="fail"):
            pytest.fail("must not start")
    assert a.shut_down == 1


async def test_a_start_that_hangs_is_given_up(scripted: Scripted, script: Scripts) -> None:
    script("a", hang_start=True)
    script("b", serves=["y"])
    async with scripted("a", "b", start_timeout_s=0.1) as stack:
        health = await stack.inspect.health()
        assert health.providers[0].reason == "did not start within 0.1 s"
        assert await answer_of(stack, "y") == "b"


async def test_a_backend_that_goes_down_turns_health_and_recovers(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=["x"])
    async with scripted("a") as stack:
        instance = stack.instances["inference"][0]
        a.fail_list = a.fail_call = httpx.ConnectError("refused")
        with pytest.raises(ProviderUnavailableError):
            await answer_of(stack, "x")
        await until(lambda: instance.status == "down")
        (listed,) = await stack.models.list_models()
        assert "is down: refused" in (listed.unavailable_reason or "")
        a.fail_list = a.fail_call = None
        await until(lambda: instance.status == "healthy")
        assert await answer_of(stack, "x") == "a"
        assert a.shut_down == 0


async def test_dependencies_start_first_and_stop_last(discovery: Discovery, script: Scripts) -> None:
    shared = script("shared")
    config = {
        "providers": {
            "memory": [{"provider_id": "mem", "provider_type": "needs-inference", "config": {"script": "shared"}}],
            "inference": [{"provider_id": "inf", "provider_type": "scripted", "config": {"script": "shared"}}],
        }
    }
    async with Stack.from_config(config, discovery=discovery):
        assert shared.order == ["start inf", "start mem"]
    assert shared.order == ["start inf", "start mem", "stop mem", "stop inf"]


async def test_the_bodys_own_error_comes_out_as_it_is(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    with pytest.raises(ZeroDivisionError):
        async with scripted("a"):
            _ = 1 / 0
    assert a.shut_down == 1


async def test_a_cancelled_stack_closes_its_providers(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    started = anyio.Event()

    async def run() -> None:
        async with scripted("a"):
            started.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await started.wait()
        group.cancel_scope.cancel()
    assert a.shut_down == 1


async def test_a_stack_can_be_run_again_after_it_stopped(scripted: Scripted, script: Scripts) -> None:
    script("a")
    for _ in range(2):
        async with scripted("a") as stack:
            assert await answer_of(stack, "m") == "a"
    gc.collect()


async def test_only_the_listed_apis_are_served(discovery: Discovery) -> None:
    sample = [{"provider_id": "s", "provider_type": "remote::sample"}]
    config = {"providers": {"inference": sample, "safety": sample}, "apis": ["safety"]}
    async with Stack.from_config(config, discovery=discovery) as stack:
        assert sorted(stack.apis) == ["inspect", "safety", "shields"]


async def test_a_missing_store_folder_is_a_config_error(scripted: Scripted, script: Scripts) -> None:
    with pytest.raises(ConfigError, match="the sqlite store needs 'path'"):
        scripted("a", store={"type": "sqlite"})


async def test_health_tells_what_a_provider_is_at(scripted: Scripted, script: Scripts) -> None:
    made = script("a")
    async with scripted("a") as stack:
        assert made.deps is not None

        async def progress() -> Any:
            [provider] = (await stack.inspect.health()).providers
            return provider.progress

        assert await progress() is None
        made.deps.report_progress(Progress("fetching x", 5, 10, "bytes"))
        assert await progress() == ProviderProgress(task="fetching x", done=5, total=10, unit="bytes")
        made.deps.report_progress(Progress("fetching x", 10, 10, "bytes"))
        assert await progress() is None
        made.deps.report_progress(Progress("waiting", 1, None, "s"))
        assert await progress() == ProviderProgress(task="waiting", done=1, total=None, unit="s")


# ---- what a spec says is not there -----------------------------------------------------------------------------------

DOT = ImageMedia(image="data:image/png;base64,iVBORw0KGgo=")


@pytest.mark.parametrize(
    "message",
    [
        UserMessage(content=DOT),
        UserMessage(content=["What is this?", DOT]),
        UserMessage(content="What is this?", context=[DOT]),
        ToolResponseMessage(call_id="c", tool_name="camera", content=[DOT]),
    ],
)
async def test_images_are_refused_where_the_spec_has_none(message: Any) -> None:
    provider = {"provider_id": "s", "provider_type": "remote::sample"}
    async with Stack.from_config({"providers": {"inference": [provider]}}) as stack:
        with pytest.raises(NotSupportedError, match=r"'messages' of chat_completion \(images: unsupported\)") as caught:
            await stack.inference.chat_completion(model="sample-echo", messages=[*HELLO, message])
        assert (caught.value.param, caught.value.provider_id) == ("messages", "s")
        assert await answer_of(stack, "sample-echo") == "Hello"


async def test_what_the_spec_says_nothing_of_is_for_the_provider_to_decide(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=["m"])
    async with scripted("a") as stack:
        await stack.inference.chat_completion(model="m", messages=[UserMessage(content=DOT)])
        assert a.last("chat_completion")["messages"][0].content == DOT
