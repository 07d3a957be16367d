"""Errors of PostgreSQL as llamastack errors. Details, which may hold rows, and secrets are left out."""

from __future__ import annotations

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout

from llamastack.provider import (
    AuthenticationError,
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)

_REFUSED = ("password authentication failed", "no password supplied", "no pg_hba.conf entry", "authentication failed")
_GONE = (errors.UndefinedTable, errors.InvalidSchemaName)
# https://www.postgresql.org/docs/current/errcodes-appendix.html: connections, resources, an operator's intervention,
# the system's errors, and a database that only reads.
_UNAVAILABLE = ("08", "53", "57P", "58", "25006")


def translated(error: psycopg.Error, where: str) -> LlamaStackError:
    """The error of the family. where: the database, without a password."""
    text = (error.diag.message_primary or str(error).split("\n")[0]).strip()
    code = error.sqlstate or ""
    if isinstance(error, PoolTimeout):
        return ProviderUnavailableError(f"no connection to {where} is free; 'connections' of the config limits them")
    if isinstance(error, PoolClosed):
        return ProviderUnavailableError("the provider is not started")
    if isinstance(error, errors.ConnectionTimeout):
        return ProviderTimeoutError(f"{where} does not answer in time")
    if isinstance(error, errors.QueryCanceled):
        return ProviderTimeoutError(f"{where}: a statement took longer than the config allows: {text}")
    if isinstance(error, _GONE):
        return NotFoundError(f"{where}: {text}")
    if code.startswith("28") or any(words in str(error) for words in _REFUSED):
        return AuthenticationError(f"{where}: {text}")
    if isinstance(error, errors.InsufficientPrivilege):
        return PermissionDeniedError(f"{where}: {text}")
    if isinstance(error, errors.ProgramLimitExceeded):
        return InvalidRequestError(f"{where}: {text}; make the bank's chunks smaller")
    if code.startswith(_UNAVAILABLE) or (not code and isinstance(error, psycopg.OperationalError)):
        return ProviderUnavailableError(f"{where}: {text}")
    return BackendError(f"{where}: {text}")
