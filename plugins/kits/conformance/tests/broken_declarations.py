"""Inference providers whose package or spec is broken in one way."""

from __future__ import annotations

from typing import Any

from breaking import BROKEN, Broken, config_class, spec_of
from broken_inference import Base, broken, made_by
from pydantic import ConfigDict, Field

from llamastack.provider import (
    Deps,
)
from llamastack_adapters.openai_dialect import Dialect
from llamastack_provider_openai import OPENAI
from llamastack_provider_openai.config import OpenAIProviderConfig


@broken("static.api-version", api_version=">=1.0")
class TakesAnyVersion(Base): ...


@broken("static.dependencies", optional_api_dependencies=("nonsense",))
class DependsOnNonsense(Base): ...


@broken("static.capabilities", without=("tools",))
class SaysNothingOfTools(Base): ...


@broken("static.capabilities", capabilities={"telepathy": "supported"})
class SaysTooMuch(Base): ...


def _blocking(config: OpenAIProviderConfig, deps: Deps) -> Base:
    return Base(config, deps, Dialect(deps.provider_id), url=config.url, key=config.api_key)


async def _unannotated(config: Any, deps: Any):  # type: ignore[no-untyped-def]
    return _blocking(config, deps)


async def _alone(config: OpenAIProviderConfig) -> Base:
    raise NotImplementedError


@broken("static.factory", factory=_blocking)
class FactoryBlocks(Base): ...


@broken("static.factory", factory=_unannotated)
class FactorySaysNothing(Base): ...


@broken("static.factory", factory=_alone)
class FactoryTakesTooLittle(Base): ...


@broken("static.protocol")
class LacksAnArgument(Base):
    async def embeddings(self, model: str) -> Any:  # type: ignore[override]
        raise NotImplementedError


class _Bare(OpenAIProviderConfig):
    region: str = "eu"


class _Lax(OpenAIProviderConfig):
    model_config = ConfigDict(extra="ignore")


class _Open(OpenAIProviderConfig):
    account_token: str = Field(default="", description="Of the account")


@broken("static.config-described", config_class=config_class("Bare", _Bare))
class DescribesNothing(Base): ...


@broken("static.config-strict", config_class=config_class("Lax", _Lax))
class TakesMisspeltKeys(Base): ...


@broken("static.secrets", config_class=config_class("Open", _Open))
class KeepsSecretsInTheOpen(Base): ...


BROKEN.append(
    Broken(
        "static.entry-point",
        "inference",
        "of_another_api",
        spec_of(OPENAI, "of_another_api", made_by(Base), api="safety"),
    )
)
