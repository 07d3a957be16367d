"""The `params` of a query: one meaning for all memory providers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llamastack.api.base import JsonObject
from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import invalid_request
from llamastack_memory_kit.filters import FilterParams, too_large

_ALLOWED = (
    "allowed in params: max_chunks (1 to 1000, default 3), score_threshold (a number), mode ('vector', 'keyword' or "
    "'hybrid'), filters, fusion ('reciprocal_rank' or 'weighted'), rerank, max_tokens_in_context"
)


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReciprocalRank(_Params):
    """Fusion by ranks (https://doi.org/10.1145/1571941.1572114): a chunk has the sum of 1/(k + rank) over both lists.

    The sum is divided by that of a chunk that is first in both, so that scores are 0 to 1.
    """

    type: Literal["reciprocal_rank"]
    k: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 60
    """How little the first ranks count more than the next ones."""


class Weighted(_Params):
    """Fusion by scores. Those of each list are moved and stretched to 0 to 1, then weighed and added."""

    type: Literal["weighted"]
    vector_weight: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.5
    """The weight of the vector scores, 0 to 1; keyword scores have the rest."""


class Rerank(_Params):
    """The best candidates are judged by a chat model, and sorted by its judgement."""

    model: str
    """The model that judges."""
    candidates: Annotated[int, Field(strict=True, ge=1, le=100)] = 20
    """How many of the best chunks it judges."""


class QueryParams(_Params):
    """What `params` may hold."""

    max_chunks: Annotated[int, Field(strict=True, ge=1, le=1000)] = 3
    """The most chunks to return."""
    score_threshold: Annotated[float | None, Field(strict=True, allow_inf_nan=False)] = None
    """The least score of a chunk to return."""
    mode: Literal["vector", "keyword", "hybrid"] | None = None
    """How to search; None: as the bank does by default."""
    filters: FilterParams | None = None
    """Which documents are searched, by their metadata."""
    fusion: Annotated[ReciprocalRank | Weighted, Field(discriminator="type")] | None = None
    """How `hybrid` makes one list of two."""
    rerank: Rerank | None = None
    """Which model sorts what was found."""
    max_tokens_in_context: Annotated[int | None, Field(strict=True, ge=1)] = None
    """The most tokens of all chunks together. A chunk that does not fit is left out, for a shorter one behind it."""


class _Query(BaseModel):
    """Prefixes the paths in errors with `params.`."""

    params: QueryParams


def read_query_params(params: JsonObject | None, provider_id: str) -> QueryParams:
    """The params of a query. Raises InvalidRequestError, which says what is allowed."""
    params = params or {}
    if (why := too_large(params.get("filters"))) is not None:
        raise InvalidRequestError(f"params.filters: {why}", param="params.filters", provider_id=provider_id)
    try:
        read = _Query.model_validate({"params": params}).params
    except ValidationError as error:
        refused: InvalidRequestError = invalid_request(error, _Query, provider_id=provider_id)
        raise refused.amend(f"{refused.message}; {_ALLOWED}") from None
    if read.fusion is not None and read.mode != "hybrid":
        raise InvalidRequestError(
            "params.fusion: only queries of mode 'hybrid' are fused", param="params.fusion", provider_id=provider_id
        )
    return read
