"""Every HTTP method of `HttpBackend`: what is sent, answers without content, errors, queries and quoted paths."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import pytest
from backends.scripted_http import CLOSE, RESET, End, ScriptedHttp, answer
from pydantic import BaseModel, SecretStr

from llamastack.http.connections import fresh_connections
from llamastack.provider.context import use_provider_data
from llamastack.provider.deps import Deps
from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ProviderUnavailableError,
)
from llamastack_adapters.backend import HttpBackend
from llamastack_adapters.credentials import ApiKey
from llamastack_adapters.error_bodies import stated_error
from llamastack_adapters.remote_inference import HttpConfig
from llamastack_adapters.url_paths import url_path

pytestmark = pytest.mark.anyio
METHODS = ("get", "post", "put", "patch", "delete")
ODD = ["a/b", "a b", "ä?ö#ü", "100%", "a%2Fb", "...", "\U0001f999", "a+b&c=d", "x" * 200]


@pytest.fixture
async def backend(scripted_backend: ScriptedHttp) -> AsyncIterator[HttpBackend]:
    made = HttpBackend(f"{scripted_backend.url}/api", HttpConfig(), finds_error=stated_error)
    yield made
    await made.aclose()


@pytest.mark.parametrize("method", METHODS)
async def test_a_method_is_sent_and_answered(method: str, backend: HttpBackend, scripted_backend: ScriptedHttp) -> None:
    scripted_backend.answers.append(answer(200, {"message": "is no error here", "n": 1}))
    arguments = () if method == "get" else ({"a": "ä"},)
    assert await getattr(backend, method)("/items/1", *arguments) == {"message": "is no error here", "n": 1}
    [seen] = scripted_backend.received
    assert (seen.method, seen.path) == (method.upper(), "/api/items/1")
    assert seen.headers.get("content-type") == (None if method == "get" else "application/json")
    if method != "get":
        assert seen.json == {"a": "ä"}


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_without_a_body_has_no_content_type(
    method: str, backend: HttpBackend, scripted_backend: ScriptedHttp
) -> None:
    scripted_backend.answers.append(answer(200, {}))
    assert await getattr(backend, method)("/items") == {}
    assert (scripted_backend.received[0].body, scripted_backend.received[0].headers.get("content-type")) == (b"", None)


@pytest.mark.parametrize(
    ("method", "status", "is_fine"),
    [
        *((method, 204, True) for method in METHODS),
        *((method, 200, True) for method in ("put", "patch", "delete")),
        ("post", 201, True),
        ("post", 200, False),
        ("get", 200, False),
    ],
)
async def test_an_answer_without_content(
    method: str, status: int, is_fine: bool, backend: HttpBackend, scripted_backend: ScriptedHttp
) -> None:
    scripted_backend.answers.append(answer(status, b"", content_type=None))
    if is_fine:
        assert await getattr(backend, method)("/items") is None
    else:
        with pytest.raises(BackendError, match="something else than JSON"):
            await getattr(backend, method)("/items")


@pytest.mark.parametrize("method", METHODS)
async def test_an_error_is_one_of_the_family(method: str, backend: HttpBackend, scripted_backend: ScriptedHttp) -> None:
    scripted_backend.answers.append(answer(404, {"error": "NotFoundError", "message": "no item 1"}))
    with pytest.raises(NotFoundError, match="answered 404: no item 1"):
        await getattr(backend, method)("/items/1")
    scripted_backend.answers.append(answer(409, {"status": {"error": "it is there"}}))
    with pytest.raises(ConflictError, match="answered 409: it is there"):
        await getattr(backend, method)("/items/1")
    scripted_backend.answers.append(answer(200, {"error": {"message": "no"}}))
    with pytest.raises(BackendError, match="answered with an error: no"):
        await getattr(backend, method)("/items/1")


@pytest.mark.parametrize("method", METHODS)
async def test_a_rate_limit_is_tried_again(method: str, scripted_backend: ScriptedHttp) -> None:
    backend = HttpBackend(scripted_backend.url, HttpConfig(max_retries=1, max_retry_wait_s=0.3))
    scripted_backend.answers.extend([answer(429, {}), answer(200, {"n": 1})])
    assert await getattr(backend, method)("/items") == {"n": 1}
    assert [seen.method for seen in scripted_backend.received] == [method.upper()] * 2
    await backend.aclose()


@pytest.mark.parametrize("method", METHODS)
async def test_names_of_users_in_a_path_arrive_unchanged(
    method: str, backend: HttpBackend, scripted_backend: ScriptedHttp
) -> None:
    for name in ODD:
        scripted_backend.answers.append(answer(200, {}))
        await getattr(backend, method)(url_path("items", name, 7))
        segments = scripted_backend.received[-1].path.split("/")
        assert [unquote(each) for each in segments] == ["", "api", "items", name, "7"]


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_no_url_can_hold_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be a name"):
        url_path("items", name)


async def test_the_query_of_a_url(backend: HttpBackend, scripted_backend: ScriptedHttp) -> None:
    scripted_backend.answers.extend([answer(200, {}), answer(204, b"", content_type=None)])
    await backend.get("/items", {"after": "a&b=ä", "limit": 5})
    await backend.delete("/items", params={"hard": "true"})
    paths = [seen.path for seen in scripted_backend.received]
    assert paths == ["/api/items?after=a%26b%3D%C3%A4&limit=5", "/api/items?hard=true"]


class _Data(BaseModel):
    acme_api_key: SecretStr | None = None


@pytest.mark.parametrize("field", [None, "acme_api_key"])
async def test_a_key_in_a_header_of_another_name(field: str | None, scripted_backend: ScriptedHttp) -> None:
    deps = Deps(provider_id="acme", provider_data_validator=_Data)
    key = ApiKey(deps, SecretStr("operators"), field=field, header="X-Api-Key")
    backend = HttpBackend(scripted_backend.url, HttpConfig(), key=key)
    scripted_backend.answers.extend([answer(200, {})] * 2)
    await backend.get("/items")
    with use_provider_data({"acme_api_key": "clients"}):
        await backend.get("/items")
    sent = [seen.headers.get("x-api-key") for seen in scripted_backend.received]
    assert sent == ["operators", "operators" if field is None else "clients"]
    assert all("authorization" not in seen.headers for seen in scripted_backend.received)
    await backend.aclose()


def test_an_error_about_a_key_that_no_client_sends_names_the_config_only() -> None:
    key = ApiKey(Deps(provider_id="acme"), None, field=None)
    assert not key.from_clients
    with pytest.raises(AuthenticationError) as caught:
        key.value()
    assert caught.value.message == "provider 'acme' needs a key: 'api_key' in its config"
    assert caught.value.param == "api_key"
    refused: Any = key.explained(AuthenticationError("no"))
    assert (refused.message, refused.param) == ("no (no key was given; 'api_key' in its config)", "api_key")


# ---- connections that end without an answer --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_a_request_whose_connection_ends_at_once_is_sent_again(
    method: str, end: End, backend: HttpBackend, scripted_backend: ScriptedHttp
) -> None:
    scripted_backend.answers.extend([[end], answer(200, {"n": 1})])
    assert await getattr(backend, method)("/items/1") == {"n": 1}
    first, second = scripted_backend.received
    assert first.connection != second.connection


@pytest.mark.parametrize("method", ["post", "patch"])  # the HTTP library resends methods that are idempotent
@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_inside_fresh_connections_a_request_is_sent_once(
    method: str, end: End, backend: HttpBackend, scripted_backend: ScriptedHttp
) -> None:
    scripted_backend.answers.extend([answer(200, {"n": 1}), [end], answer(200, {"n": 2})])
    assert await getattr(backend, method)("/items/1") == {"n": 1}
    with fresh_connections(), pytest.raises(ProviderUnavailableError):
        await getattr(backend, method)("/items/1")
    kept, own = scripted_backend.received
    assert kept.connection != own.connection


async def test_a_list_is_asked_for(backend: HttpBackend, scripted_backend: ScriptedHttp) -> None:
    scripted_backend.answers.extend([answer(200, [{"name": "a"}]), answer(200, [])])
    assert await backend.get_list("/items", {"page": "1"}) == [{"name": "a"}]
    assert await backend.get_list("/items") == []


@pytest.mark.parametrize("answered", [{}, {"items": []}, 0, True, None])
async def test_what_is_no_list_is_not_taken_for_an_empty_one(
    answered: Any, backend: HttpBackend, scripted_backend: ScriptedHttp
) -> None:
    scripted_backend.answers.append(answer(200, answered))
    with pytest.raises(BackendError, match="/items answered JSON that is not a list"):
        await backend.get_list("/items")
