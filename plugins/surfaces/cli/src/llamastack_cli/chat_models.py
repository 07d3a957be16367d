"""Which of the served models can be talked to."""

from __future__ import annotations

from collections.abc import Iterable

from llamastack.api.models import Model


def chat_models(models: Iterable[Model]) -> list[Model]:
    """Those that are available and do more than embed: a model that generates has a context length."""
    return [
        m
        for m in models
        if m.unavailable_reason is None and ("embedding_dimension" not in m.metadata or "context_length" in m.metadata)
    ]
