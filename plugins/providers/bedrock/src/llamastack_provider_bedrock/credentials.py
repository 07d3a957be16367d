"""The AWS credentials of a call: a client's own, else the operator's.

One botocore client serves all callers: it asks for credentials when it signs a request, in the task of the call.
"""

from __future__ import annotations

from typing import Any

import anyio
from aiobotocore.credentials import AioCredentials  # type: ignore[import-untyped]
from botocore.credentials import ReadOnlyCredentials  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from pydantic import SecretStr

from llamastack.provider import (
    AuthenticationError,
    Deps,
    InvalidRequestError,
    LlamaStackError,
    PermissionDeniedError,
)
from llamastack.provider.context import PROVIDER_DATA_HEADER
from llamastack.provider.redaction import Redactor, struck_error
from llamastack_adapters.credentials import fits_header, key_text
from llamastack_provider_bedrock.config import BedrockConfig, BedrockProviderData

_PAIR = ("aws_access_key_id", "aws_secret_access_key")
_LOOK_UP_S = 15.0
_LOOK_AGAIN_AFTER_S = 10.0


class CallCredentials(AioCredentials):  # type: ignore[misc]
    """What botocore takes for credentials. `load_credentials` makes it the credential provider of a session, too."""

    def __init__(self, config: BedrockConfig, deps: Deps) -> None:
        super().__init__("", "")
        self._deps = deps
        self._configured = _read(config)
        self._chain: Any = None
        self._found: Any = None
        self._look_at = float("-inf")

    async def load_credentials(self) -> CallCredentials:
        return self

    async def look_in(self, chain: Any) -> None:
        """Look for the operator's credentials in botocore's chain, unless the config has them.

        Raises AuthenticationError if existing credentials cannot be read.
        """
        self._chain = chain
        await self._operators()

    @property
    def has_operators(self) -> bool:
        """Whether the operator has credentials."""
        return self._configured is not None or self._found is not None

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """The credentials to sign with now.

        Raises AuthenticationError that says where to give some, and InvalidRequestError for half a pair of a client.
        """
        found = self._own() or await self._operators()
        if found is None:
            raise AuthenticationError(
                f"provider '{self._deps.provider_id}' needs AWS credentials: {self._ways}",
                provider_id=self._deps.provider_id,
                param=self._place(_PAIR[0]),
            )
        return found

    async def explained(self, error: LlamaStackError) -> LlamaStackError:
        """`error` without the credentials that AWS repeats. An error about credentials also says whose they are."""
        used = await self.get_frozen_credentials()
        secrets = [SecretStr(text) for text in (used.access_key, used.secret_key, used.token) if text]
        struck_error(error, Redactor(secrets))
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            own = self._own() is not None
            whose = "those of this request" if own else "those of the config" if self._configured else "those found"
            error.amend(
                f"{error.message} (the AWS credentials are {whose}; {self._ways})",
                param=self._place(_PAIR[0]) if own else _PAIR[0],
            )
        return error

    @property
    def _ways(self) -> str:
        return (
            f"'{_PAIR[0]}' and '{_PAIR[1]}' in its config, where AWS tools look for them, or in the header "
            f"{PROVIDER_DATA_HEADER}"
        )

    @staticmethod
    def _place(field: str) -> str:
        return f"{PROVIDER_DATA_HEADER}.{field}"

    def _own(self) -> ReadOnlyCredentials | None:
        data = self._deps.request_data()
        if not isinstance(data, BedrockProviderData):
            return None
        for name in type(data).model_fields:
            text = key_text(getattr(data, name))
            if not fits_header(text):
                raise self._invalid(name, "must be printable ASCII")
        given = [name for name in type(data).model_fields if key_text(getattr(data, name))]
        for name in _PAIR:
            if given and name not in given:
                raise self._invalid(name, f"is missing: it belongs to '{given[0]}'")
        return _read(data)

    def _invalid(self, field: str, what: str) -> InvalidRequestError:
        place = self._place(field)
        return InvalidRequestError(f"{place}: {what}", provider_id=self._deps.provider_id, param=place)

    async def _operators(self) -> ReadOnlyCredentials | None:
        """Those of the config, or of the chain: looked for again in a while where it had none, renewed when due."""
        if self._configured is not None:
            return self._configured
        try:
            with anyio.fail_after(_LOOK_UP_S):
                if self._found is None and self._chain is not None and anyio.current_time() >= self._look_at:
                    self._look_at = anyio.current_time() + _LOOK_AGAIN_AFTER_S
                    self._found = await self._chain.load_credentials()
                return None if self._found is None else await self._found.get_frozen_credentials()
        except TimeoutError:
            raise self._unreadable(f"looking took more than {_LOOK_UP_S:g} s") from None
        except (BotoCoreError, ClientError) as error:
            raise self._unreadable(str(error)) from error

    def _unreadable(self, why: str) -> AuthenticationError:
        return AuthenticationError(
            f"provider '{self._deps.provider_id}' cannot get its AWS credentials: {why}",
            provider_id=self._deps.provider_id,
        )


def _read(fields: BedrockConfig | BedrockProviderData) -> ReadOnlyCredentials | None:
    key, secret = key_text(fields.aws_access_key_id), key_text(fields.aws_secret_access_key)
    return ReadOnlyCredentials(key, secret, key_text(fields.aws_session_token) or None) if key and secret else None
