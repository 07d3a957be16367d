"""Points, filters and requests in the types of Qdrant's own engine, which has others than qdrant-client.

Two things differ in the payload: the engine compares no booleans (`MatchValue(True)` finds nothing), so 0 and 1 stand
for them; and the metadata are JSON text, as the engine keeps no whole numbers of more than 64 bits.
"""

from __future__ import annotations

import json
from typing import Any, cast

import qdrant_edge as edge
from qdrant_client import models

_FIELDS = ["document_id", "content", "token_count", "metadata", "chunk_index", "generation", "prefix"]


def to_point(point: models.PointStruct) -> edge.Point:
    """A point to write."""
    given = point.vector
    named = given if isinstance(given, dict) else {"": given}
    vector = {
        name: edge.SparseVector(each.indices, each.values) if isinstance(each, models.SparseVector) else each
        for name, each in named.items()
    }
    return edge.Point(id=str(point.id), vector=cast(Any, vector), payload=_to_payload(point.payload or {}))


def to_request(request: models.QueryRequest) -> edge.QueryRequest:
    """A query by a vector, dense or sparse, for the fields that results need."""
    asked = request.query
    by: Any = edge.SparseVector(asked.indices, asked.values) if isinstance(asked, models.SparseVector) else asked
    return edge.QueryRequest(
        query=edge.Query.Nearest(by, using=request.using or None),
        filter=None if request.filter is None else to_filter(request.filter),
        limit=request.limit or 10,
        score_threshold=request.score_threshold,
        with_payload=_FIELDS,
    )


def from_scored(point: edge.ScoredPoint) -> models.ScoredPoint:
    """A point that was found."""
    payload = dict(point.payload or {})
    if "metadata" in payload:
        payload["metadata"] = json.loads(payload["metadata"])
    return models.ScoredPoint(id=str(point.id), version=0, score=point.score, payload=payload)


def to_operation(operation: models.UpdateOperation) -> edge.UpdateOperation:
    """A change of all points that fit a filter."""
    if isinstance(operation, models.SetPayloadOperation) and isinstance(operation.set_payload.filter, models.Filter):
        change = operation.set_payload
        return edge.UpdateOperation.set_payload_by_filter(
            to_filter(cast(models.Filter, change.filter)), _to_payload(change.payload)
        )
    if isinstance(operation, models.DeleteOperation) and isinstance(operation.delete, models.FilterSelector):
        return edge.UpdateOperation.delete_points_by_filter(to_filter(operation.delete.filter))
    raise TypeError(f"{type(operation).__name__} of this form is not translated")


def to_filter(given: models.Filter) -> edge.Filter:
    """The same filter."""
    return edge.Filter(
        must=_conditions(given.must), should=_conditions(given.should), must_not=_conditions(given.must_not)
    )


def _conditions(given: Any) -> list[Any] | None:
    if given is None:
        return None
    return [_condition(each) for each in (given if isinstance(given, list) else [given])]


def _condition(given: Any) -> edge.Filter | edge.FieldCondition:
    if isinstance(given, models.Filter):
        return to_filter(given)
    if isinstance(given, models.FieldCondition):
        if isinstance(given.match, models.MatchValue):
            return edge.FieldCondition(key=given.key, match=edge.MatchValue(cast(Any, _plain(given.match.value))))
        if isinstance(given.match, models.MatchAny):
            return edge.FieldCondition(key=given.key, match=edge.MatchAny(cast(Any, given.match.any)))
        if isinstance(given.range, models.Range):
            bounds = given.range
            within = edge.RangeFloat(gte=bounds.gte, gt=bounds.gt, lte=bounds.lte, lt=bounds.lt)
            return edge.FieldCondition(key=given.key, range=within)
    raise TypeError(f"{type(given).__name__} of this form is not translated")


def _to_payload(payload: dict[str, Any]) -> dict[str, Any]:
    made = {name: _plain(value) for name, value in payload.items()}
    if "metadata" in made:
        made["metadata"] = json.dumps(made["metadata"])
    return made


def _plain(value: object) -> object:
    return int(value) if isinstance(value, bool) else value
