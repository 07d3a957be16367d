"""Names, aliases and keys of remote providers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from backends.scripted_http import ScriptedHttp, answer
from pydantic import BaseModel, SecretStr, ValidationError

from llamastack.api import Model
from llamastack.provider.context import use_provider_data
from llamastack.provider.deps import Deps, replaying
from llamastack.provider.errors import AuthenticationError, BackendError, InvalidRequestError, UnsupportedModelError
from llamastack_adapters.credentials import ApiKey
from llamastack_adapters.openai_dialect import Dialect, OpenAIConfig, OpenAIInference
from llamastack_adapters.remote_inference import RemoteConfig, RemoteInference

pytestmark = pytest.mark.anyio
PLACE = "X-LlamaStack-ProviderData.acme_api_key"


class AcmeData(BaseModel):
    acme_api_key: SecretStr | None = None


class Acme(RemoteInference):
    """Serves `names`; refuses to say so when `closed`."""

    names = ("big", "small")
    closed = False
    keyed = True

    @property
    def has_key(self) -> bool:
        return self.keyed

    async def served(self) -> list[Model]:
        if self.closed:
            raise AuthenticationError("who are you?")
        return [Model(identifier=name, metadata={"context_length": 9}) for name in self.names]


def acme(**config: Any) -> Acme:
    return Acme(RemoteConfig(**config), Deps(provider_id="p"))


async def test_aliases_are_listed_after_what_is_served() -> None:
    provider = acme(models={"fast": "small", "small": "small", "lost": "gone"})
    models = {model.identifier: model.metadata for model in await provider.list_models()}
    assert list(models) == ["big", "small", "fast"]
    assert models["fast"] == {"context_length": 9, "alias_of": "small"}
    assert models["small"] == {"context_length": 9}
    assert provider.backend_name("fast") == "small"
    assert provider.backend_name("big") == "big"


async def test_an_alias_may_take_the_name_of_something_else() -> None:
    provider = acme(models={"big": "small"})
    models = {model.identifier: model.metadata for model in await provider.list_models()}
    assert models == {"big": {"context_length": 9, "alias_of": "small"}, "small": {"context_length": 9}}
    assert provider.backend_name("big") == "small"


async def test_an_alias_of_nothing_hides_what_the_backend_calls_so() -> None:
    provider = acme(models={"big": "gone"})
    assert [model.identifier for model in await provider.list_models()] == ["small"]


async def test_a_name_that_is_not_served_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    provider = acme(models={"lost": "gone"})
    await provider.list_models()
    await provider.list_models()
    assert caplog.text.count("does not serve 'gone'") == 1
    provider.names = ("gone",)
    await provider.list_models()
    provider.names = ()
    await provider.list_models()
    assert caplog.text.count("does not serve 'gone'") == 2


async def test_registering() -> None:
    provider = acme(models={"fast": "small", "lost": "gone"})
    for name in ("big", "fast", "fast"):
        await provider.register_model(Model(identifier=name))
    for name in ("lost", "none"):
        with pytest.raises(UnsupportedModelError, match="Served: big, fast, lost, small"):
            await provider.register_model(Model(identifier=name))


async def test_a_backend_that_asks_for_a_clients_key_before_it_lists() -> None:
    provider = acme(models={"fast": "small"})
    provider.closed = True
    with pytest.raises(AuthenticationError):
        await provider.list_models()
    provider.keyed = False
    [only] = await provider.list_models()
    assert (only.identifier, only.metadata) == ("fast", {"alias_of": "small"})
    with pytest.raises(AuthenticationError):
        await provider.register_model(Model(identifier="fast"))
    with replaying():  # it was registered by a client that had a key
        await provider.register_model(Model(identifier="fast"))
        provider.keyed = True
        with pytest.raises(AuthenticationError):
            await provider.register_model(Model(identifier="fast"))


def key(configured: str | None = None, *, needed: bool = True) -> ApiKey:
    secret = None if configured is None else SecretStr(configured)
    deps = Deps(provider_id="p", provider_data_validator=AcmeData)
    return ApiKey(deps, secret, field="acme_api_key", needed=needed)


def test_a_clients_own_key_comes_first() -> None:
    assert key("operator").bearer() == {"Authorization": "Bearer operator"}
    with use_provider_data({"acme_api_key": "client"}):
        assert key("operator").bearer() == {"Authorization": "Bearer client"}
        assert key().value() == "client"
    with use_provider_data({"acme_api_key": ""}):
        assert key("operator").value() == "operator"
    assert key(needed=False).bearer() == {}


@pytest.mark.parametrize("configured", [None, ""])
def test_a_key_that_is_missing(configured: str | None) -> None:
    with pytest.raises(AuthenticationError, match="provider 'p' needs a key") as caught:
        key(configured).value()
    assert caught.value.param == PLACE
    assert "'acme_api_key' in the header X-LlamaStack-ProviderData" in caught.value.message


@pytest.mark.parametrize("odd", ["a\r\nX-Evil: 1", "clé", "a\x00b"])
def test_a_key_that_no_header_can_hold(odd: str) -> None:
    with (
        use_provider_data({"acme_api_key": odd}),
        pytest.raises(InvalidRequestError, match="printable ASCII") as caught,
    ):
        key().value()
    assert caught.value.param == PLACE
    assert odd not in caught.value.message
    with pytest.raises(AuthenticationError, match="api_key: must be printable ASCII") as refused:
        key(odd).value()
    assert odd not in refused.value.message


@pytest.mark.parametrize("url", ["http://user:secret@host/v1", "ftp://host", "host:80", ""])
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OpenAIConfig.model_validate({"url": url})
    assert "secret" not in str(caught.value)


def test_the_key_is_not_shown(tmp_path: Path) -> None:
    config = OpenAIConfig.model_validate({"url": "http://host/v1", "api_key": "s3cret"})
    assert "s3cret" not in f"{config!r} {config} {config.model_dump_json()}"


# ---- lists in other forms ----------------------------------------------------------------------------------------


class Listing(OpenAIInference):
    key_field = "acme_api_key"
    key_needed = False


class ListingByName(Listing):
    def name_of(self, entry: Mapping[str, Any]) -> str:
        return str(entry["name"])


class ListingByHand(Listing):
    def models_of(self, entries: Iterable[Mapping[str, Any]]) -> list[Model]:
        return [Model(identifier=entry["name"]) for entry in entries]


@pytest.mark.parametrize("kind", [ListingByName, ListingByHand])
async def test_entries_need_no_id_if_a_subclass_maps_them(kind: type[Listing], scripted_backend: ScriptedHttp) -> None:
    scripted_backend.lists = False
    scripted_backend.answers.append(answer(200, {"data": [{"name": "large"}, {"name": "small", "id": 7}]}))
    deps = Deps(provider_id="acme")
    provider = kind(RemoteConfig(), deps, Dialect("acme"), url=scripted_backend.url, key=None)
    assert [model.identifier for model in await provider.list_models()] == ["large", "small"]
    await provider.shutdown()


async def test_an_entry_without_id_is_a_clear_error(scripted_backend: ScriptedHttp) -> None:
    scripted_backend.lists = False
    scripted_backend.answers.append(answer(200, [{"id": "large"}, {"name": "small", "size": 1}]))
    scripted_backend.answers.append(answer(200, {"data": ["large"]}))
    deps = Deps(provider_id="acme")
    provider = Listing(RemoteConfig(), deps, Dialect("acme"), url=scripted_backend.url, key=None)
    with pytest.raises(BackendError, match=r"without a text in 'id' \(its fields: name, size\).*override 'name_of'"):
        await provider.list_models()
    with pytest.raises(BackendError, match="something else than a list of models at /models"):
        await provider.list_models()
    await provider.shutdown()
