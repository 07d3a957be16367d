"""ProviderSpec, capabilities and the compliance check."""

from __future__ import annotations

from typing import Any

import pytest

from llamastack.provider import Capabilities, InlineProviderSpec, RemoteProviderSpec
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.compliance import check_provider
from llamastack.provider.spec import ProviderSpec

INFERENCE = next(api for api in BUILTIN_APIS if api.name == "inference")
TELEMETRY = next(api for api in BUILTIN_APIS if api.name == "telemetry")


def spec(**changes: Any) -> ProviderSpec:
    settings: dict[str, Any] = {
        "api": "inference",
        "provider_type": "x",
        "description": "d",
        "config_class": "a.b:C",
        "factory": "a.b:f",
    }
    return InlineProviderSpec(**(settings | changes))


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [(">=1.0,<2", True), (">=1", True), ("==1.0", True), (">=1.1", False), ("<1", False), ("!=1.0", False)],
)
def test_api_version_ranges(wanted: str, fits: bool) -> None:
    assert spec(api_version=wanted).accepts_api_version((1, 0)) is fits


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"api_version": "~1"}, "'~1' is not like '>=1.0' or '<2'"),
        ({"config_class": "a.b.C"}, "config_class: 'a.b.C' is not of the form"),
        ({"factory": "a b:c"}, "factory: 'a b:c' is not of the form"),
        ({"provider_data_validator": "x"}, "provider_data_validator: 'x' is not of the form"),
        ({"description": " "}, "description: must not be empty"),
    ],
)
def test_a_bad_spec_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        spec(**changes)


def test_kinds() -> None:
    assert spec().kind == "inline"
    assert RemoteProviderSpec.kind == "remote"


def test_capabilities_know_their_words() -> None:
    found = Capabilities(tools="supported", logprobs="since 0.9", embeddings="unsupported", streaming="not implemented")
    assert [name for name in found if found.refused(name)] == ["embeddings", "streaming"]
    assert not found.refused("never heard of")
    with pytest.raises(ValueError, match="capability 'tools': 'yes' is not one of"):
        Capabilities(tools="yes")


@pytest.mark.parametrize(
    ("name", "backend_version", "holds"),
    [
        ("tools", None, True),
        ("embeddings", None, False),
        ("streaming", None, False),
        ("never heard of", None, False),
        ("logprobs", None, True),
        ("logprobs", "0.12.11", True),
        ("logprobs", "0.9", True),
        ("logprobs", "v0.8.99-rc1", False),
    ],
)
def test_what_holds_of_a_backend_of_some_version(name: str, backend_version: str | None, holds: bool) -> None:
    declared = Capabilities(
        tools="supported", logprobs="since 0.9", embeddings="unsupported", streaming="not implemented"
    )
    assert declared.holds(name, backend_version) is holds


def test_every_capability_of_an_api_says_what_it_stands_for() -> None:
    found = {api.name: api.capabilities for api in BUILTIN_APIS}
    assert found["inference"]["images"] == (
        "images in `content` of `completion`",
        "images in `messages` of `chat_completion`",
        "images in `contents` of `embeddings`",
    )
    assert found["memory"]["ttl"] == ("`ttl_seconds` of `insert_documents`",)
    assert {"registration", "unregister"} <= found["safety"].keys()
    assert not {"registration", "unregister"} & (found["models"].keys() | found["agents"].keys())


_NO_LISTS = Capabilities(list_traces="unsupported", list_spans="unsupported")


class _Telemetry:
    async def log_event(self, event: Any) -> None: ...

    async def get_trace(self, trace_id: str) -> Any: ...


def test_a_compliant_provider_has_no_faults() -> None:
    assert check_provider(TELEMETRY, _Telemetry(), _NO_LISTS) == []


def test_every_fault_is_listed() -> None:
    class Wrong:
        def get_trace(self, trace_id: str) -> None: ...

        def shutdown(self) -> None: ...

    assert check_provider(TELEMETRY, Wrong(), _NO_LISTS) == [
        "log_event: is missing (wanted: async def log_event(self, event: 'Event') -> 'None')",
        "get_trace: must be 'async def'",
        "shutdown: must be 'async def'",
    ]


def test_an_inherited_protocol_body_is_no_implementation() -> None:
    class Nothing(INFERENCE.protocol):  # type: ignore[misc,name-defined]
        async def list_models(self) -> Any: ...

        async def register_model(self, model: Any) -> None: ...

    faults = check_provider(INFERENCE, Nothing(), Capabilities())
    assert [fault.partition(":")[0] for fault in faults] == ["completion", "chat_completion", "embeddings"]
    declared = Capabilities(completion="unsupported", chat_completion="not implemented", embeddings="unsupported")
    assert check_provider(INFERENCE, Nothing(), declared) == []


def test_arguments_may_be_taken_by_name_or_by_double_star() -> None:
    class ByName:
        async def log_event(self, *, event: Any) -> None: ...

        async def get_trace(self, **arguments: Any) -> Any: ...

    class Positional:
        async def log_event(self, event: Any, /) -> None: ...

        async def get_trace(self, *arguments: Any) -> Any: ...

    assert check_provider(TELEMETRY, ByName(), _NO_LISTS) == []
    assert len(check_provider(TELEMETRY, Positional(), _NO_LISTS)) == 2
