"""The conformance suite against the stand-in of Bedrock, over llama.cpp's engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from backends.bedrock import ACCESS_KEY, HAIKU, REGION, SECRET, TITAN_EMBED, bedrock_front
from backends.llama_server import LlamaServer

from llamastack_conformance import InferenceConformance


class TestBedrockConformance(InferenceConformance):
    provider_type = "remote::bedrock"

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, llama: LlamaServer) -> Iterator[dict[str, Any]]:
        with bedrock_front(llama) as (_, url):
            keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET}
            config = {"endpoint_url": url, "region_name": REGION, **keys}
            provider = {"provider_id": "bedrock", "provider_type": cls.provider_type, "config": config}
            # Of a client's credentials the backend sees the id, and a signature made with the secret.
            client = {"aws_access_key_id": "{key}", "aws_secret_access_key": "clients/secret"}
            settings = {
                "chat_model": HAIKU,
                "embedding_model": TITAN_EMBED,
                "image_model": HAIKU,
                "client_data": client,
                "many_texts": 35,
                "parallel_calls": 8,
            }
            yield {"providers": {"inference": [provider]}, "x-conformance": settings}
