"""The conformance suite against the stand-ins of TGI and of Hugging Face, over llama.cpp's engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backends.llama_server import LlamaServer
from backends.tgi import tgi_stand_in

from llamastack_conformance import InferenceConformance

TOKEN = "hf_good"
REPO = "owner/small"
WAIVERS = Path(__file__).parent / "conformance_waivers.yaml"


def run_config(provider_type: str, **config: Any) -> dict[str, Any]:
    provider = {"provider_id": "hf", "provider_type": provider_type, "config": {"api_token": TOKEN, **config}}
    settings = {"backend_url_field": "url", "parallel_calls": 8}
    return {"providers": {"inference": [provider]}, "x-conformance": settings}


class TestTGIConformance(InferenceConformance):
    provider_type = "remote::tgi"
    waivers = WAIVERS

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, llama: LlamaServer) -> Iterator[dict[str, Any]]:
        with tgi_stand_in(llama.url, keys={TOKEN}) as (_, url):
            yield run_config(cls.provider_type, url=url)


class TestEndpointConformance(InferenceConformance):
    provider_type = "remote::hf::endpoint"
    waivers = WAIVERS

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, llama: LlamaServer) -> Iterator[dict[str, Any]]:
        with tgi_stand_in(llama.url, keys={TOKEN}) as (_, url):
            yield run_config(cls.provider_type, url=url)


class TestServerlessConformance(InferenceConformance):
    provider_type = "remote::hf::serverless"
    waivers = WAIVERS

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, llama: LlamaServer) -> Iterator[dict[str, Any]]:
        offers = {REPO: {"hf-inference": "live", "elsewhere": "live"}}
        with tgi_stand_in(llama.url, model_id=REPO, keys={TOKEN}, offers=offers) as (_, url):
            yield run_config(cls.provider_type, url=f"{url}/hf-inference", hub_url=url, huggingface_repo=REPO)
