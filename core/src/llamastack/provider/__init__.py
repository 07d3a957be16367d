"""What a provider author imports.

Names are imported on first use: a package's `__init__` with its spec costs what a spec needs and no more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llamastack.api import Api

if TYPE_CHECKING:
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
    from llamastack.provider.protocols import (
        MemoryBanksProtocolPrivate,
        ModelsProtocolPrivate,
        OpenAIProtocolPrivate,
        OpenAIRequest,
        ShieldsProtocolPrivate,
    )
    from llamastack.provider.spec import InlineProviderSpec, ProviderSpec, RemoteProviderSpec

_MODULES = ("capabilities", "errors", "hookspecs", "spec", "deps", "protocols")  # the cheapest first

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
    "OpenAIProtocolPrivate",
    "OpenAIRequest",
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


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module_name in _MODULES:
            module = importlib.import_module(f"llamastack.provider.{module_name}")
            found = vars(module).get(name)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module 'llamastack.provider' has no attribute {name!r}")
