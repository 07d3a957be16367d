"""Request-scoped provider data: what a client hands over for one request in `X-LlamaStack-ProviderData`.

It lives in a ContextVar for the time of the request, so it cannot reach another request, and is read by the provider
through `Deps.request_data()`, validated by the model that its spec names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import pydantic_core
from pydantic import BaseModel, ValidationError

from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.validation import explain_validation_error
from llamastack.provider.validation_paths import path_of

PROVIDER_DATA_HEADER = "X-LlamaStack-ProviderData"
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")


class ProviderDataHeader:
    """The header of one request. It is read when somebody needs it: many providers need none.

    text: as the header came, its bytes taken for Latin-1, as HTTP has it.
    """

    __slots__ = ("_data", "_read", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._read = False
        self._data: dict[str, Any] | None = None

    @property
    def data(self) -> dict[str, Any] | None:
        """The JSON object in it; None where it holds something else."""
        if not self._read:
            self._read = True
            found = _json_in(self.text)
            self._data = found if isinstance(found, dict) else None
        return self._data


def _json_in(text: str) -> object:
    try:
        # JSON is UTF-8, whatever HTTP takes a header for; some clients send Latin-1 all the same.
        return pydantic_core.from_json(text.encode("latin-1"))
    except ValueError:
        pass
    try:
        return pydantic_core.from_json(text)
    except ValueError:
        return None


_current: ContextVar[Mapping[str, Any] | ProviderDataHeader | None] = ContextVar(
    "llamastack_provider_data", default=None
)


class use_provider_data:  # noqa: N801 - used as a function is; a generator would take three times as long
    """`with use_provider_data(data)`: make `data` the provider data of the calls made inside the block."""

    __slots__ = ("_data", "_token")

    def __init__(self, data: Mapping[str, Any] | ProviderDataHeader | None) -> None:
        self._data = data

    def __enter__(self) -> None:
        self._token = _current.set(self._data)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def current_provider_data() -> Mapping[str, Any] | None:
    """The raw data of this request; None where there is none, or a header that holds no JSON object. Never log it."""
    data = _current.get()
    return data.data if isinstance(data, ProviderDataHeader) else data


def provider_data_to_forward() -> str | None:
    """The header for a server that this request is handed on to, in printable ASCII.

    One that holds no JSON object is handed on as it is: that server says whether it needs one.
    """
    data = _current.get()
    if isinstance(data, ProviderDataHeader):
        if data.data is None:
            return _NOT_PRINTABLE.sub("?", data.text)
        data = data.data
    return None if data is None else json.dumps(dict(data))


def validated_provider_data(model: type[BaseModel], provider_id: str) -> BaseModel | None:
    """The data of this request read as `model`; None when the request brought none.

    Fields that belong to other providers are passed over. Raises InvalidRequestError that names the field, or the
    header where that holds no JSON object.
    """
    given = _current.get()
    if given is None:
        return None
    data = current_provider_data()
    if data is None:
        # The text itself may hold keys: it is not repeated.
        raise InvalidRequestError(
            f"the header {PROVIDER_DATA_HEADER} must hold a JSON object",
            provider_id=provider_id,
            param=PROVIDER_DATA_HEADER,
        )
    try:
        return model.model_validate(dict(data), extra="ignore")
    except ValidationError as error:
        faults = explain_validation_error(error, model)
        where = path_of([PROVIDER_DATA_HEADER, *faults[0]["loc"]])
        raise InvalidRequestError(
            f"{where}: {faults[0]['msg']}", provider_id=provider_id, param=where, errors=faults
        ) from None
