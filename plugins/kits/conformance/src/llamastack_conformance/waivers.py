"""Waivers: checks that are known to fail, each with a reason. All but those of kind `model` must be needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from llamastack.provider.validation import explain_validation_error
from llamastack.provider.validation_paths import path_of


class WaiverError(Exception):
    """A file of waivers is wrong; the message has a line for each error."""


class Waiver(BaseModel):
    """One check that is known to fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="The check's id")
    kind: Literal["unsupported", "model", "future", "bug"] = Field(
        description="`unsupported`: the backend cannot. `model`: the provider passes it on, and the answer depends on "
        "the model. `future`: the provider does not yet. `bug`: it should"
    )
    reason: Annotated[str, Field(min_length=1)] = Field(description="Why, for people")
    link: str | None = Field(None, pattern=r"^https?://", description="Where it is discussed; for `future` and `bug`")
    expires: date | None = Field(None, description="The last day of its validity, YYYY-MM-DD; for `future` and `bug`")
    provider: str | None = Field(None, description="The provider type that it is for; any by default")

    @model_validator(mode="after")
    def _is_followed(self) -> Self:
        if self.kind in ("future", "bug") and (self.link is None or self.expires is None):
            raise ValueError(f"a waiver of kind '{self.kind}' needs 'link' and 'expires'")
        return self

    @property
    def must_be_needed(self) -> bool:
        """Whether its check must fail: not where that depends on the model."""
        return self.kind != "model"

    def described(self) -> dict[str, str]:
        """What reports say of it: the fields that it has, as text."""
        fields = {"kind": self.kind, "reason": self.reason, "link": self.link, "expires": self.expires}
        return {name: str(value) for name, value in fields.items() if value is not None}

    def expired(self, today: date | None = None) -> bool:
        return self.expires is not None and (today or datetime.now(UTC).date()) > self.expires

    def covers(self, check_id: str, provider_type: str) -> bool:
        return self.id == check_id and self.provider in (None, provider_type)


_FILE = TypeAdapter(list[Waiver])


def read_waivers(file: Path, known: Collection[str]) -> Sequence[Waiver]:
    """The waivers in a YAML file: a list of mappings.

    known: the ids of all checks. Raises WaiverError if the file cannot be read, if a waiver is incomplete or has an
    unknown id, and if there are two for the same check.
    """
    try:
        waivers = _FILE.validate_python(yaml.safe_load(file.read_text(encoding="utf-8")) or [])
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WaiverError(f"{file}: cannot be read: {error}") from None
    except ValidationError as error:
        lines = [f"{file}: {path_of(e['loc'])}: {e['msg']}" for e in explain_validation_error(error, _FILE)]
        raise WaiverError("\n".join(lines)) from None
    seen: set[tuple[str, str | None]] = set()
    for waiver in waivers:
        if waiver.id not in known:
            raise WaiverError(f"{file}: there is no check '{waiver.id}'; see `pytest --llamastack-list`")
        if (waiver.id, waiver.provider) in seen:
            raise WaiverError(f"{file}: '{waiver.id}' is waived twice")
        seen.add((waiver.id, waiver.provider))
    return waivers
