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
            description="Tokens of a text that are read, the two that mark its start and end included. "
            "256 is what the model was trained with.",
        ),
    ] = 256
    too_long: Annotated[
        Literal["truncate", "refuse"],
        Field(description="What to do with a text of more tokens: read its start only, or refuse the request."),
    ] = "truncate"
    batch_size: Annotated[
        int,
        Field(ge=1, le=1024, description="Texts that go through the model at once."),
    ] = 8
    threads: Annotated[
        int, Field(ge=0, le=1024, description="CPU threads for one batch; 0 lets onnxruntime take every core.")
    ] = 0
