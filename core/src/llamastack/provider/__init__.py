"""Floor 2: all that a provider author imports."""

from llamastack.api import Api
from llamastack.provider.capabilities import Capabilities
from llamastack.provider.deps import Deps, Progress
from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    ConflictError,
    ContextLengthExceededError,
    InternalError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    RequestTooLargeError,
    UnsupportedMemoryBankError,
    UnsupportedModelError,
    UnsupportedShieldError,
)
from llamastack.provider.hookspecs import hookimpl
from llamastack.provider.private import (
    MemoryBanksProtocolPrivate,
    ModelsProtocolPrivate,
    ShieldsProtocolPrivate,
)
from llamastack.provider.spec import InlineProviderSpec, ProviderSpec, RemoteProviderSpec

__all__ = [
    "Api",
    "AuthenticationError",
    "BackendError",
    "Capabilities",
    "ConflictError",
    "ContextLengthExceededError",
    "Deps",
    "InlineProviderSpec",
    "InternalError",
    "InvalidRequestError",
    "LlamaStackError",
    "MemoryBanksProtocolPrivate",
    "ModelsProtocolPrivate",
    "NotFoundError",
    "NotSupportedError",
    "ObjectNotFoundError",
    "PermissionDeniedError",
    "Progress",
    "ProviderSpec",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "RateLimitError",
    "RemoteProviderSpec",
    "RequestTooLargeError",
    "ShieldsProtocolPrivate",
    "UnsupportedMemoryBankError",
    "UnsupportedModelError",
    "UnsupportedShieldError",
    "hookimpl",
]
