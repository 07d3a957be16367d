"""The key `prices` of a run config, the file that it may name, and the prices in a model's metadata."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Amount = Annotated[float, Field(ge=0, le=1_000_000_000, allow_inf_nan=False, strict=True)]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
DEFAULT_CURRENCY = "USD"
MOST_ENTRIES = 10_000


class Prices(BaseModel):
    """What a model costs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: _Amount | None = Field(None, description="Price of 1,000,000 tokens of the input")
    output: _Amount | None = Field(
        None, description="Price of 1,000,000 tokens of the output; an embedding model has none"
    )
    cached_input: _Amount | None = Field(
        None, description="Price of 1,000,000 tokens of the input that came from a cache; by default that of `input`"
    )
    request: _Amount | None = Field(None, description="Price of each call, beside its tokens")
    currency: _Currency | None = Field(None, description="ISO 4217 code; by default that of the section or file")

    @model_validator(mode="after")
    def _has_a_price(self) -> Prices:
        if self.input is None and self.request is None:
            raise ValueError("must have a price: `input` or `request`, or both")
        return self


class PriceEntry(Prices):
    """The prices of the models of one name."""

    model: str = Field(
        min_length=1, max_length=512, description="Identifier of the model; `*` stands for any characters"
    )
    provider_id: str | None = Field(None, description="Only for models of this provider instance")


class PriceFile(BaseModel):
    """A file of prices. It has no `file` of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: _Currency = Field(DEFAULT_CURRENCY, description="ISO 4217 code of prices that name none")
    models: list[PriceEntry] = Field(
        default_factory=list, max_length=MOST_ENTRIES, description="Prices by the model's name"
    )


class PricesConfig(PriceFile):
    """What calls cost. Without this key, and without a model that has prices of its own, nothing has a cost."""

    file: str | None = Field(
        None,
        min_length=1,
        description="YAML file with the keys `currency` and `models`, relative to the run config. Entries of the run "
        "config go before those of the file",
    )
