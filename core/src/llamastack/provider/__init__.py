"""What a provider author imports.

Names are imported on first use: a package's `__init__` with its spec costs what a spec needs and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamastack.api import Api
from llamastack.lazy_imports import lazy_getattr

__all__ = [
    "Api",
    "AuthenticationError",
    "BackendError",
    "Capabilities",
    "ConflictError",
    "ContextLengthExceededError",
    "Deps",
    "Entry",
    "InlineProviderSpec",
    "InternalError",
    "InvalidRequestError",
    "KeyValue",
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
    "StoreUnavailableError",
    "UnsupportedMemoryBankError",
    "UnsupportedModelError",
    "UnsupportedObjectError",
    "UnsupportedShieldError",
    "hookimpl",
]

if TYPE_CHECKING:
    from llamastack.provider.capabilities import *
    from llamastack.provider.deps import *
    from llamastack.provider.errors import *
    from llamastack.provider.hookspecs import *
    from llamastack.provider.key_value import *
    from llamastack.provider.protocols import *
    from llamastack.provider.spec import *
else:
    __getattr__ = lazy_getattr(
        __name__, (".capabilities", ".errors", ".hookspecs", ".spec", ".deps", ".key_value", ".protocols"), __all__
    )
