"""The key `metrics` of a run config."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from llamastack.provider.hookspecs import OPEN_ROUTES

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_MOST_BUCKETS = 50


def _checked_path(path: str) -> str:
    if not _PATH.fullmatch(path) or path in OPEN_ROUTES:
        raise ValueError(f"must be a path such as /metrics; not {', '.join(sorted(OPEN_ROUTES))}, which are taken")
    return path


def _checked_buckets(bounds: tuple[float, ...]) -> tuple[float, ...]:
    if list(bounds) != sorted(set(bounds)):
        raise ValueError("the bounds of buckets must rise")
    return bounds


_Bound = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Buckets = Annotated[
    tuple[_Bound, ...], Field(min_length=1, max_length=_MOST_BUCKETS), AfterValidator(_checked_buckets)
]


class MetricsConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Whether the stack has metrics; false costs nothing")
    path: Annotated[str, AfterValidator(_checked_path)] = Field("/metrics", description="Path of the metrics")
    host: str = Field("127.0.0.1", min_length=1, description="Address of the port of their own")
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port of their own, without authentication; then they are not on the server's port. null: "
        "on the server's port",
    )
    duration_buckets_s: _Buckets = Field(
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
        description="Upper bounds of the buckets of durations, in seconds",
    )
    first_token_buckets_s: _Buckets = Field(
        (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        description="Upper bounds of the buckets of the time to the first token, in seconds",
    )
    max_series: int = Field(
        1000,
        ge=10,
        le=100_000,
        description="Most label sets of requests, and of provider calls, in each process; further ones are counted "
        "as `other`",
    )
