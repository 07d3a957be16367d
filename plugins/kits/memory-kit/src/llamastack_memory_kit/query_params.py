"""The `params` of a query: one meaning for all memory providers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llamastack.api.base import JsonObject
from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import invalid_request

_ALLOWED = "allowed in params: max_chunks (1 to 1000, default 3), score_threshold (a number)"


class QueryParams(BaseModel):
    """What `params` may hold."""

    model_config = ConfigDict(extra="forbid")

    max_chunks: Annotated[int, Field(strict=True, ge=1, le=1000)] = 3
    """The most chunks to return."""
    score_threshold: Annotated[float | None, Field(strict=True, allow_inf_nan=False)] = None
    """The least score of a chunk to return."""


class _Query(BaseModel):
    """Prefixes the paths in errors with `params.`."""

    params: QueryParams


def read_query_params(params: JsonObject | None, provider_id: str) -> QueryParams:
    """The params of a query. Raises InvalidRequestError, which says what is allowed."""
    try:
        return _Query.model_validate({"params": params or {}}).params
    except ValidationError as error:
        refused: InvalidRequestError = invalid_request(error, _Query, provider_id=provider_id)
        raise refused.amend(f"{refused.message}; {_ALLOWED}") from None
