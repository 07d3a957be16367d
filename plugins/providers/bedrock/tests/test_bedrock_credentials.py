"""Whose AWS credentials a call is signed with, and that they show nowhere."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from backends.bedrock import ACCESS_KEY, HAIKU, REGION, SECRET, BedrockFront
from backends.bedrock_wire import Secret, error
from blockbuster import blockbuster_ctx
from pydantic import ValidationError

from llamastack import Stack
from llamastack.api import Model, SamplingParams, UserMessage
from llamastack.provider import (
    AuthenticationError,
    Deps,
    InvalidRequestError,
    LlamaStackError,
    PermissionDeniedError,
)
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.compliance import check_provider
from llamastack.provider.context import PROVIDER_DATA_HEADER, use_provider_data
from llamastack_provider_bedrock import BEDROCK
from llamastack_provider_bedrock.config import BedrockConfig
from llamastack_provider_bedrock.inference import get_adapter_impl

pytestmark = pytest.mark.anyio

OWN = {
    "aws_access_key_id": "ASIACLIENT0000000002",
    "aws_secret_access_key": "client/secret+93ac0f1e2d3c4b5a69788796",
    "aws_session_token": "client/token//IQoJb3JpZ2luX2VjEN==",
}
NONE = {"aws_access_key_id": None, "aws_secret_access_key": None}
KEYS = {
    ACCESS_KEY: Secret(SECRET),
    OWN["aws_access_key_id"]: Secret(OWN["aws_secret_access_key"], OWN["aws_session_token"]),
}


def signed_by(front: BedrockFront, operation: str = "Converse") -> str:
    """The access key id of the newest request."""
    return front.last(operation).headers["authorization"].partition("Credential=")[2].partition("/")[0]


# ---- config ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"aws_access_key_id": "AKIAX"}, "aws_secret_access_key is missing"),
        ({"aws_secret_access_key": "hidden-secret"}, "aws_access_key_id is missing"),
        ({"aws_access_key_id": "", "aws_secret_access_key": "hidden-secret"}, "aws_access_key_id is missing"),
        ({"aws_session_token": "hidden-secret"}, "belong to a session token"),
        ({"endpoint_url": "http://user:hidden-secret@host"}, "must not contain credentials"),
        ({"region_name": "eu central"}, "region_name"),
        ({"retries": 3}, "retries"),
    ],
)
def test_a_wrong_config(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        BedrockConfig.model_validate(config)
    assert "hidden-secret" not in str(caught.value)


def test_secrets_do_not_show_in_the_config() -> None:
    config = BedrockConfig.model_validate({**OWN, "region_name": REGION})
    for secret in OWN.values():
        assert secret not in repr(config) + str(config) + config.model_dump_json()


async def test_it_is_a_provider() -> None:
    provider = await get_adapter_impl(BedrockConfig(), Deps(provider_id="p"))
    assert not check_provider(BUILTIN_APIS[0], provider, BEDROCK.capabilities)
    await provider.shutdown()
    await provider.shutdown()


async def test_shut_down_twice_and_called_after(bedrock: Callable[..., tuple[BedrockFront, str]]) -> None:
    _, url = bedrock()
    config = BedrockConfig.model_validate(
        {
            "endpoint_url": url,
            "region_name": REGION,
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET,
        }
    )
    provider = await get_adapter_impl(config, Deps(provider_id="p"))
    await provider.initialize()
    assert await provider.list_models()
    await provider.shutdown()
    await provider.shutdown()
    with pytest.raises(LlamaStackError, match="not started"):
        await provider.list_models()
    await provider.initialize()
    assert await provider.list_models()
    await provider.shutdown()


async def test_a_region_is_needed(started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with started(region_name=None) as running:
        with pytest.raises(LlamaStackError, match="no AWS region: set 'region_name'"):
            await running.chat()
    (tmp_path / "aws-config").write_text(f"[profile work]\nregion = {REGION}\n")
    async with started(region_name=None, profile_name="work") as running:
        assert await running.chat()
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    async with started(region_name=None) as running:
        assert await running.chat()
    async with started(profile_name="nobody") as running:
        with pytest.raises(LlamaStackError, match="nobody"):
            await running.chat()


async def test_without_an_endpoint_it_is_that_of_aws(started: Callable[..., Any]) -> None:
    provider = await get_adapter_impl(
        BedrockConfig.model_validate(
            {
                "region_name": "eu-west-3",
                "aws_access_key_id": ACCESS_KEY,
                "aws_secret_access_key": SECRET,
                "control_endpoint_url": "http://127.0.0.1:9",
            }
        ),
        Deps(provider_id="p"),
    )
    await provider.initialize()
    clients = provider._bedrock._clients
    assert clients["bedrock-runtime"].meta.endpoint_url == "https://bedrock-runtime.eu-west-3.amazonaws.com"
    assert clients["bedrock"].meta.endpoint_url == "http://127.0.0.1:9"
    await provider.shutdown()


# ---- the operator's --------------------------------------------------------------------------------------------------


async def test_credentials_of_the_environment(started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OWN["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OWN["aws_secret_access_key"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", OWN["aws_session_token"])
    async with started(front={"keys": KEYS}, **NONE) as running:
        await running.chat()
        assert signed_by(running.front) == OWN["aws_access_key_id"]
    # Those of the config come first.
    async with started(front={"keys": KEYS}) as running:
        await running.chat()
        assert signed_by(running.front) == ACCESS_KEY


async def test_credentials_of_a_profile(started: Callable[..., Any], tmp_path: Path) -> None:
    lines = [f"{name} = {value}" for name, value in OWN.items()]
    (tmp_path / "aws-credentials").write_text("\n".join(["[work]", *lines]))
    async with started(front={"keys": KEYS}, profile_name="work", **NONE) as running:
        await running.chat()
        assert signed_by(running.front) == OWN["aws_access_key_id"]
        # What AWS repeats of them is struck out, though no config has them.
        running.front.answers.append(error(403, "AccessDeniedException", f"Denied: {' '.join(OWN.values())}"))
        with pytest.raises(PermissionDeniedError, match=r"Denied: \*\*\* \*\*\* \*\*\*"):
            await running.chat()
        running.front.keys = {OWN["aws_access_key_id"]: Secret("rotated", OWN["aws_session_token"])}
        with pytest.raises(AuthenticationError, match="those found") as caught:
            await running.chat()
        assert not [s for s in OWN.values() if s in caught.value.message]


async def test_half_a_pair_in_the_environment(started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHALF")
    async with started(**NONE) as running:
        with pytest.raises(LlamaStackError, match="cannot get its AWS credentials: .*AWS_SECRET_ACCESS_KEY"):
            await running.chat()


async def test_credentials_that_come_later_are_found(
    started: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamastack_provider_bedrock.credentials._LOOK_AGAIN_AFTER_S", 0.0)
    async with started(run={"refresh_interval_s": 0.3}, **NONE) as running:
        assert not await running.stack.models.list_models()
        lines = f"aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET}\n"
        (tmp_path / "aws-credentials").write_text(f"[default]\n{lines}")
        with anyio.fail_after(20):
            while not await running.stack.models.list_models():
                await anyio.sleep(0.1)
        assert await running.chat()


async def test_a_silent_metadata_service_does_not_hold_it_up(
    started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        async with started(models={"small": HAIKU}, **NONE) as running:
            with pytest.raises(AuthenticationError, match="needs AWS credentials"):
                await running.chat(model="small")
        assert time.monotonic() - began < 10
        silent.settimeout(1)
        asked, _ = silent.accept()  # which has waited: it was asked
        asked.close()


async def test_a_token_of_the_environment_signs_nothing(
    started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would count for every client, whatever credentials it brings."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-hidden")
    async with started() as running:
        await running.chat()
        assert signed_by(running.front) == ACCESS_KEY
        assert not [s for s in running.front.seen if "bedrock-api-key-hidden" in str(s.headers)]


# ---- a client's own --------------------------------------------------------------------------------------------------


async def test_own_credentials_come_first_for_one_request(started: Callable[..., Any]) -> None:
    async with started(front={"keys": KEYS}) as running:
        with use_provider_data(OWN):
            await running.chat()
            assert signed_by(running.front) == OWN["aws_access_key_id"]
            await running.events()
            assert signed_by(running.front, "ConverseStream") == OWN["aws_access_key_id"]
        await running.chat()
        assert signed_by(running.front) == ACCESS_KEY
        assert signed_by(running.front, "ListFoundationModels") == ACCESS_KEY


async def test_calls_at_once_do_not_mix_them(started: Callable[..., Any]) -> None:
    async with started(front={"keys": KEYS}) as running:

        async def call(number: int) -> None:
            with use_provider_data(OWN if number % 2 else None):
                messages = [UserMessage(content=f"Number {number}")]
                await running.chat(messages=messages, sampling_params=SamplingParams(max_tokens=1))

        async with anyio.create_task_group() as calls:
            for number in range(8):
                calls.start_soon(call, number)
        for seen in running.front.seen:
            if seen.operation == "Converse":
                own = int(seen.body["messages"][0]["content"][0]["text"].rpartition(" ")[2]) % 2
                assert (OWN["aws_access_key_id"] in seen.headers["authorization"]) == bool(own)


async def test_without_credentials_clients_bring_theirs(started: Callable[..., Any]) -> None:
    async with started(front={"keys": KEYS}, models={"small": HAIKU}, **NONE) as running:
        assert [m.identifier for m in await running.stack.models.list_models()] == ["small"]
        for stream in (False, True):
            with pytest.raises(AuthenticationError, match="'aws_access_key_id' and 'aws_secret_access_key'") as caught:
                await running.chat(model="small", stream=stream)
            assert PROVIDER_DATA_HEADER in caught.value.message
            assert "'p'" in caught.value.message
            assert caught.value.param == f"{PROVIDER_DATA_HEADER}.aws_access_key_id"
        with use_provider_data(OWN):
            assert await running.chat(model="small")
            await running.stack.models.register_model(Model(identifier=HAIKU, provider_id="p"))
            assert await running.chat(model=HAIKU)


async def test_wrong_provider_data(running: Any) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"aws_access_key_id": "AKIAX"}, "aws_secret_access_key", "is missing: it belongs to 'aws_access_key_id'"),
        ({"aws_secret_access_key": "hidden"}, "aws_access_key_id", "is missing"),
        ({"aws_session_token": "hidden"}, "aws_access_key_id", "it belongs to 'aws_session_token'"),
        ({**OWN, "aws_access_key_id": "AKIA\r\nX: y"}, "aws_access_key_id", "must be printable ASCII"),
        ({**OWN, "aws_session_token": "tökén"}, "aws_session_token", "must be printable ASCII"),
        ({**OWN, "aws_session_token": 7}, "aws_session_token", "valid string"),
    ]
    for data, field, words in cases:
        with use_provider_data(data), pytest.raises(InvalidRequestError, match=words) as caught:
            await running.chat()
        assert caught.value.param == f"{PROVIDER_DATA_HEADER}.{field}"
        assert "hidden" not in caught.value.message
    assert not running.front.count("Converse")


async def test_refused_credentials_say_whose_they_are(started: Callable[..., Any]) -> None:
    async with started(front={"keys": dict(KEYS)}) as running:
        with (
            use_provider_data({**OWN, "aws_secret_access_key": "wrong-secret-of-client"}),
            pytest.raises(AuthenticationError, match="those of this request") as own,
        ):
            await running.chat()
        assert own.value.param == f"{PROVIDER_DATA_HEADER}.aws_access_key_id"
        # AWS has told all that was signed, the token included.
        assert OWN["aws_session_token"] not in own.value.message
        assert "Canonical" not in own.value.message
        running.front.answers.append(error(403, "AccessDeniedException", "You don't have access to the model."))
        with pytest.raises(PermissionDeniedError, match=r"access to the model\..*those of the config") as denied:
            await running.chat()
        assert denied.value.param == "aws_access_key_id"
        running.front.keys[ACCESS_KEY] = Secret("rotated")
        with pytest.raises(AuthenticationError, match="those of the config"):
            await running.chat()


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    before = {name: logging.getLogger(name).level for name in ("botocore", "aiobotocore")}
    for name in before:
        logging.getLogger(name).setLevel(logging.NOTSET)
    with caplog.at_level(logging.DEBUG):
        yield caplog
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


async def test_no_secret_shows(started: Callable[..., Any], everything_logged: pytest.LogCaptureFixture) -> None:
    secrets = [SECRET, ACCESS_KEY, *OWN.values()]
    async with started(front={"keys": dict(KEYS)}) as running:
        with use_provider_data(OWN):
            await running.chat()
            await running.events()
        running.front.keys.clear()
        running.front.keys[ACCESS_KEY] = Secret("rotated")
        listed = await running.stack.inspect.list_providers()
        shown = repr(listed) + repr(await running.stack.inspect.health())
        for data in (None, OWN):
            with use_provider_data(data), pytest.raises(AuthenticationError) as caught:
                await running.chat()
            shown += str(caught.value) + repr(caught.value) + json.dumps(caught.value.to_wire())
    assert not [s for s in secrets if s in shown]
    assert not [s for s in secrets if s in everything_logged.text]
    assert "capital of France" not in everything_logged.text


async def test_two_instances_share_nothing(bedrock: Callable[..., tuple[BedrockFront, str]]) -> None:
    fronts = [bedrock(), bedrock(keys={"AKIAOTHER": Secret("other-secret")}, region="us-west-2")]
    configs = [
        {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET, "region_name": REGION},
        {"aws_access_key_id": "AKIAOTHER", "aws_secret_access_key": "other-secret", "region_name": "us-west-2"},
    ]
    providers = [
        {
            "provider_id": f"p{number}",
            "provider_type": "remote::bedrock",
            "config": {**config, "endpoint_url": url, "models": {f"m{number}": HAIKU}},
        }
        for number, (config, (_, url)) in enumerate(zip(configs, fronts, strict=True))
    ]
    async with Stack.from_config({"providers": {"inference": providers}}) as stack:
        for number, (front, _) in enumerate(fronts):
            messages = [UserMessage(content="What is the capital of France?")]
            await stack.inference.chat_completion(model=f"m{number}", messages=messages)
            assert signed_by(front) == configs[number]["aws_access_key_id"]
            assert front.count("Converse") == 1


async def test_starting_and_calling_do_not_block_the_loop(bedrock: Callable[..., tuple[BedrockFront, str]]) -> None:
    """botocore reads megabytes of descriptions when it makes a client."""
    _, url = bedrock()
    pair = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET}
    config = BedrockConfig.model_validate({"endpoint_url": url, "region_name": REGION, **pair})
    provider = await get_adapter_impl(config, Deps(provider_id="p"))
    with blockbuster_ctx():
        await provider.initialize()
        assert await provider.list_models()
        await provider.chat_completion(HAIKU, [UserMessage(content="Hi")], SamplingParams(max_tokens=1))
        await provider.shutdown()
