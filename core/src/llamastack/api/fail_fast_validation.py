"""Models whose lists are checked up to the first fault."""

from __future__ import annotations

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema


def _fail_fast(schema: object) -> None:
    """Set it for each list inside; the models inside have done it for theirs."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "set", "frozenset", "tuple"):
            schema["fail_fast"] = True
        for inner in schema.values():
            _fail_fast(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _fail_fast(inner)


# perf: ready. A validator is built at its first use: most of a stack's models are of APIs that it does not serve.
class FailFast(BaseModel, defer_build=True):
    """A list in it is not read beyond its first fault: one fault for each of a million entries stops a process."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema
