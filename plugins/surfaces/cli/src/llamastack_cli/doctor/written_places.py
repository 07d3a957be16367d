"""The files and folders that the providers of a run config write to, which a running server may have open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from llamastack.provider.spec import ProviderSpec
from llamastack.stack import Stack

_WRITES = "x-writes"
"""A key of `json_schema_extra` of a config's field; its value is `file` or `folder`."""
_SQLITE = "x-sqlite"
"""Another one: what the header of a SQLite file has, `application_id` and the newest `user_version`."""


class WrittenPlace(NamedTuple):
    """A place that a provider writes to. kind: `file` or `folder`. sqlite: the header of a SQLite file; else None."""

    field: str
    kind: str
    path: Path
    sqlite: Mapping[str, object] | None = None


WrittenPlaces = Mapping[tuple[str, str], list[WrittenPlace]]
"""(API, provider_id) -> those of the provider."""


def written_places(stack: Stack) -> WrittenPlaces:
    """Those of all providers of a stack."""
    return {(each.api, each.provider_id): _places_of(each.spec, each.config) for each in stack.plan.providers}


def _places_of(spec: ProviderSpec, config: object) -> list[WrittenPlace]:
    """The fields whose schema has `x-writes`, and the paths for which only one process may have the provider."""
    single = spec.single_process
    kinds = {
        name: "folder"
        for name in (single if isinstance(single, tuple) else ())
        if isinstance(getattr(config, name, None), Path)
    }
    headers: dict[str, Mapping[str, object]] = {}
    for name, field in getattr(type(config), "model_fields", {}).items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and _WRITES in extra and getattr(config, name) is not None:
            kinds[name] = str(extra[_WRITES])
            if isinstance(header := extra.get(_SQLITE), dict):
                headers[name] = header
    return [WrittenPlace(name, kind, Path(getattr(config, name)), headers.get(name)) for name, kind in kinds.items()]


def moved_places(places: list[WrittenPlace], folder: Path, prefix: str) -> dict[str, str]:
    """A place in `folder` where nothing is yet, by the field that it replaces."""
    return {place.field: str(folder / f"{prefix}-{place.field}{place.path.suffix}") for place in places}
