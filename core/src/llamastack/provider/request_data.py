"""Request-scoped provider data: what a client hands over for one request in `X-LlamaStack-ProviderData`.

It lives in a ContextVar for the time of the request, so it cannot reach another request, and is read by the provider
through `Deps.request_data()`, validated by the model that its spec names.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import pydantic_core
from pydantic import BaseModel, ValidationError

from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import faults_of
from llamastack.provider.validation_paths import path_of

PROVIDER_DATA_HEADER = "X-LlamaStack-ProviderData"

_current: ContextVar[Mapping[str, Any] | None] = ContextVar("llamastack_provider_data", default=None)


def parse_provider_data(header: str) -> dict[str, Any]:
    """The header's JSON object.

    Raises InvalidRequestError for anything else; the text itself, which may hold keys, is not repeated.
    """
    try:
        data = pydantic_core.from_json(header)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise InvalidRequestError("the header must hold a JSON object", param=PROVIDER_DATA_HEADER)
    return data


class provider_data:  # noqa: N801 - used as a function is; a generator would take three times as long
    """`with provider_data(data)`: make `data` the provider data of the calls made inside the block."""

    __slots__ = ("_data", "_token")

    def __init__(self, data: Mapping[str, Any] | None) -> None:
        self._data = data

    def __enter__(self) -> None:
        self._token = _current.set(self._data)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def current_provider_data() -> Mapping[str, Any] | None:
    """The raw data of this request. Never log it."""
    return _current.get()


def validated_provider_data(model: type[BaseModel], provider_id: str) -> BaseModel | None:
    """The data of this request read as `model`; None when the request brought none.

    Fields that belong to other providers are passed over. Raises InvalidRequestError that names the field.
    """
    data = _current.get()
    if data is None:
        return None
    try:
        return model.model_validate(dict(data), extra="ignore")
    except ValidationError as error:
        faults = faults_of(error, model)
        where = path_of([PROVIDER_DATA_HEADER, *faults[0]["loc"]])
        raise InvalidRequestError(
            f"{where}: {faults[0]['msg']}", provider_id=provider_id, param=where, errors=faults
        ) from None
