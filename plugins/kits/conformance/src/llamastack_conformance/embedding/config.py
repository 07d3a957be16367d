"""The config of the provider of embeddings for tests."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class TestEmbeddingsConfig(BaseModel):
    """All fields have defaults, so `config` may be left out."""

    __test__: ClassVar[bool] = False  # pytest would collect a class of this name

    model_config = ConfigDict(extra="forbid")

    dimension: Annotated[int, Field(ge=16, le=4096, description="Numbers in each vector.")] = 384
