"""What to do about an error, by its kind."""

from __future__ import annotations

import re
import shlex

from llamastack.provider.connection_errors import tls_failure_of
from llamastack.provider.context import PROVIDER_DATA_HEADER
from llamastack.provider.errors import (
    AuthenticationError,
    ConflictError,
    ContextLengthExceededError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    StoreUnavailableError,
    UnsupportedObjectError,
)
from llamastack.provider.redaction import without_userinfo

_OFF = "switch it off with LLAMASTACK_DISABLE_PLUGINS"
_INSTALL = re.compile(r"pip install ((?:-\S+ )*)([\"']?)([A-Za-z0-9._\[\]-]*[A-Za-z0-9\]])\2")
_UNSET = re.compile(r"environment variable ('[A-Za-z0-9_]+'(?:, '[A-Za-z0-9_]+')*) is not set")
_BY_KIND: tuple[tuple[type[BaseException], str], ...] = (
    (
        PermissionDeniedError,
        "the key is good but may not do this: ask the owner of the account for the right, or use another key",
    ),
    (RateLimitError, "wait, or raise the quota of the account; the backend is reachable and the key is good"),
    (UnsupportedObjectError, "register a name that the provider serves; the message has them"),
    (NotFoundError, "use a name that is there; the message has them, or `llamastack models list` of a running server"),
    (ContextLengthExceededError, "the model takes too few tokens for a greeting: look at its settings"),
    (
        InvalidRequestError,
        "the backend refuses the request: the message says why; if the model is no chat model, put one into `models`",
    ),
    (ConflictError, "the name is taken by something else: use another one"),
    (StoreUnavailableError, "check the disk, and the rights of the file and its folder"),
)
_REFUSED = "is the server running at {url}? Start it, or correct the address"
_BY_WORDS: tuple[tuple[str, str], ...] = (
    ("connection refused", _REFUSED),
    ("host name not known", "check the spelling of the host in {url}, and the DNS of this machine"),
    (
        "TLS failed",
        "check `http` or `https` in {url}, and the certificate; a private CA must be trusted by this machine",
    ),
    ("no connection was made in time", "check that this machine can reach {url}: firewall, proxy, VPN"),
    ("unreachable", "check that this machine can reach {url}: firewall, proxy, VPN"),
    ("something else than HTTP", "another kind of server listens at {url}: check the port"),
    ("answered 404", "check the path of {url}: many services need `/v1` at its end"),
    ("No such file", "check the path; it counts from the folder in which the command runs"),
    (
        "already accessed by another",
        "another process has the folder open: stop it, or use a server instead of a folder",
    ),
)


def advice_on_config(message: str) -> str:
    """What to do about a fault of the run config."""
    if "a plugin is left out" in message:
        return advice_on_plugin(message)
    if "no installed plugin adds API" in message:
        return "install the package that adds the API; `llamastack plugins list` shows whether one is there and broken"
    if (unset := _UNSET.search(message)) is not None:
        names = re.findall(r"'([^']+)'", unset[1])
        return f"set it: {'; '.join(f'export {name}=...' for name in names)}"
    if (install := _INSTALL.search(message)) is not None:
        return f"pip install {install[1]}{shlex.quote(install[3])}"
    if "no such file" in message or "neither a file nor" in message:
        return "check the path; `llamastack distributions list` has the installed run configs"
    if "unknown field" in message:
        return (
            "remove the key or correct its spelling; `llamastack config schema` and `providers show TYPE` have the keys"
        )
    if "is not installed" in message:
        return "correct the spelling, or install its package; `llamastack providers list` has the installed types"
    if "cannot be loaded" in message:
        return "install the package again; the message has the cause"
    return "correct the value; the message says what is allowed"


def advice_on_plugin(cause: str) -> str:
    """What to do about a plugin that is left out, or about two that claim the same."""
    if "is claimed by" in cause or "is there already" in cause:
        return "two packages claim the same: uninstall one of them, or switch one off with LLAMASTACK_DISABLE_PLUGINS"
    if "ModuleNotFoundError" in cause:
        return f"a Python package is missing: install it, or install the plugin's package again, or {_OFF}"
    if "cannot be loaded" in cause:
        return f"upgrade its package or install it again, or {_OFF}"
    return f"the fault is in the plugin itself: upgrade its package or correct its code, or {_OFF}"


def advice_on_error(
    error: BaseException | None, message: str, provider_type: str, config: object, variables: list[str]
) -> str:
    """What to do about an error of a provider.

    error: None if only its message is known. config: that of the provider. variables: those of the
    environment that it refers to.
    """
    chain = _chain_of(error)
    url = address_of(config) or "its address"
    if any(isinstance(one, ImportError) for one in chain):
        return _advice_on_import(chain, message)
    if any(isinstance(one, AuthenticationError) for one in chain):
        return _advice_on_key(chain, config, variables)
    for kind, advice in _BY_KIND:
        if any(isinstance(one, kind) for one in chain):
            return advice
    if any(tls_failure_of(one) for one in chain):
        message += "TLS failed"
    for words, advice in _BY_WORDS:
        if words.lower() in message.lower():
            return advice.format(url=url)
    if any(isinstance(one, ProviderTimeoutError | TimeoutError) for one in chain):
        return f"is {url} overloaded, or does it still load a model? Try again with a longer --timeout"
    if any(isinstance(one, ProviderUnavailableError) for one in chain):
        return _REFUSED.format(url=url)
    return f"compare its config with `llamastack providers show {provider_type}`"


def address_of(config: object) -> str | None:
    """Where the backend of a provider is, as its config names it, without a user and password."""
    found = getattr(config, "url", None) or getattr(config, "endpoint", None)
    return without_userinfo(str(found)) if found else None


def _chain_of(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop(0)
        if one is None or one in found:
            continue
        found.append(one)
        left += [*one.exceptions] if isinstance(one, BaseExceptionGroup) else [one.__cause__]
    return found


def _advice_on_import(chain: list[BaseException], message: str) -> str:
    if (install := _INSTALL.search(message)) is not None:
        return f"pip install {install[1]}{shlex.quote(install[3])}"
    names = [one.name for one in chain if isinstance(one, ImportError) and one.name]
    if names:
        return f"a Python package is missing: pip install the one that brings the module '{names[0].partition('.')[0]}'"
    return "a Python package is missing or broken: install it again"


def _advice_on_key(chain: list[BaseException], config: object, variables: list[str]) -> str:
    param = next((one.param for one in chain if isinstance(one, AuthenticationError) and one.param), None)
    if param == PROVIDER_DATA_HEADER:
        return "the key comes with each request: send provider data, or put a key into the config"
    if variables:
        return f"check the key in the environment variable {' or '.join(variables)}"
    known = getattr(type(config), "model_fields", {})
    fields = [
        f"`{name}`"
        for name, each in known.items()
        if str(each.annotation).removesuffix(" | None").endswith("SecretStr")
    ]
    return f"set the right key: {' or '.join(fields)} in its config" if fields else "set the right key in its config"
