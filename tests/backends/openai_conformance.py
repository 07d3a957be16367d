"""The conformance suite for providers of the OpenAI dialect, over llama.cpp's server behind an `OpenAIFront`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from backends.llama_server import MODEL, LlamaServer
from backends.openai_checks import KEY, OpenAIDialectChecks
from backends.openai_front import openai_front
from llamastack_conformance import InferenceConformance


class OpenAIDialectConformance(InferenceConformance):
    """differences: the class of the provider's own tests, which says where its backend differs."""

    differences: ClassVar[type[OpenAIDialectChecks]]
    parallel_calls: ClassVar[int] = 6

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, llama: LlamaServer) -> Iterator[dict[str, Any]]:
        own = cls.differences()
        with openai_front(llama, **own.front_settings(), holds_calls=True) as (_, url):
            config = {"url": own.url_of(url), own.key_name: KEY, **own.config}
            provider = {"provider_id": "under-test", "provider_type": cls.provider_type, "config": config}
            settings = {"chat_model": MODEL, "parallel_calls": cls.parallel_calls, "many_texts": 35}
            yield {"providers": {"inference": [provider]}, "x-conformance": settings}
