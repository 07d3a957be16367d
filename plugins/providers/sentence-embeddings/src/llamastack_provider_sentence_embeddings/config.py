"""The config of the sentence-embeddings provider."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class SentenceEmbeddingsConfig(BaseModel):
    """All fields have defaults, so `config` may be left out."""

    model_config = ConfigDict(extra="forbid")

    max_tokens: Annotated[
        int,
        Field(
            ge=3,
            le=512,
            description="Most tokens of a text that the model reads, including the two that mark its start and end. "
            "The model was trained with 256.",
        ),
    ] = 256
    too_long: Annotated[
        Literal["truncate", "refuse"],
        Field(description="What to do with a longer text: read only its start, or refuse the request."),
    ] = "truncate"
    batch_size: Annotated[
        int,
        Field(ge=1, le=1024, description="Texts in one batch."),
    ] = 8
    threads: Annotated[int, Field(ge=0, le=1024, description="CPU threads for one batch; 0 uses every core.")] = 0
