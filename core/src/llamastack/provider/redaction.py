"""Secrets are struck out of what people read: errors, logs, tracebacks. This is the one place that does it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar
from weakref import WeakSet

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from llamastack.provider.context import current_context
from llamastack.provider.descriptor_shortage import chain_of
from llamastack.provider.secret_forms import forms_of, struck_out

_E = TypeVar("_E", bound=BaseException)
_SHORTEST_PLAIN_SECRET = 8
_DEEPEST = 8
_MOST_OF_REQUEST = 32
_SECRET_WORDS = ("key", "token", "secret", "pass", "pwd", "credential", "auth", "bearer", "cookie", "signature", "dsn")
_SECRET_NAME = re.compile(
    r"(?:^|[_-])(?:api_?key|key|token|secret|password|passwd|pwd|passphrase|credentials?|authorization|auth|cookie)$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SCHEME = re.compile(r"^(?:bearer|basic|token)\s+", re.IGNORECASE)
_USERINFO = re.compile(r"://[^/\s]*@")
_PASSWORD_IN_URL = re.compile(r"://[^/@:\s]*:([^\s]+)@")


def sounds_secret(name: object) -> bool:
    """Whether an error must not show a value under such a key."""
    return isinstance(name, str) and any(word in name.lower() for word in _SECRET_WORDS)


def _names_secret(name: object) -> bool:
    """Whether a plain text under such a key is a secret to look for.

    Stricter than `sounds_secret`, because the text is struck out of every message.
    """
    return isinstance(name, str) and _SECRET_NAME.search(_CAMEL.sub("_", name).lower()) is not None


def _secrets_in(value: object, name: object = None, *, secret: bool = False, depth: int = _DEEPEST) -> Iterator[str]:
    """Every secret text inside a provider's config: its secret fields, and texts whose key says that they are one.

    name: the key above the value. secret: whether every text in it is a secret.
    """
    if depth < 0:
        return
    if isinstance(value, Secret | SecretStr | SecretBytes):
        yield from _secrets_in(value.get_secret_value(), secret=True, depth=depth - 1)
    elif isinstance(value, bytes) and secret:
        yield value.decode(errors="replace")
    elif isinstance(value, str):
        if secret or (_names_secret(name) and len(value) >= _SHORTEST_PLAIN_SECRET):
            yield from (value, _SCHEME.sub("", value))
        password = _PASSWORD_IN_URL.search(value)
        if password is not None:
            yield password.group(1)
    elif isinstance(value, BaseModel | Mapping):
        # Of a model its fields, and what one with extra="allow" took beside them.
        for key, item in value if isinstance(value, BaseModel) else value.items():
            yield from _secrets_in(item, key, secret=secret, depth=depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _secrets_in(item, name, secret=secret, depth=depth - 1)


class Redactor:
    """Strikes the secrets of `config`, and those of the current request, out of a text."""

    def __init__(self, config: object) -> None:
        self.forms = forms_of(_secrets_in(config))
        if self.forms:
            _in_use.add(self)

    def __call__(self, text: str) -> str:
        return without_userinfo(struck_out(text, self.forms | _forms_of_request()))


_in_use: WeakSet[Redactor] = WeakSet()


def without_known_secrets(text: str) -> str:
    """`text` without the secrets of every config that is in use in this process, and of the current request.

    For text that is shown outside of any provider, such as the traceback of a command.
    """
    return without_userinfo(struck_out(text, _forms_of_request().union(*(each.forms for each in list(_in_use)))))


def without_userinfo(text: str) -> str:
    """`text` without user and password of the URLs in it."""
    return _USERINFO.sub("://***@", text) if "@" in text and "://" in text else text


def _forms_of_request() -> frozenset[str]:
    # A client can send thousands: encodings are looked for of a few, first of those that sound like a secret.
    data = sorted((current_context().provider_data or {}).items(), key=lambda item: not sounds_secret(item[0]))
    texts = list(dict.fromkeys(_secrets_in([value for _, value in data], secret=True)))
    return forms_of(texts[:_MOST_OF_REQUEST]) | forms_of(texts[_MOST_OF_REQUEST:], encoded=False)


def struck_error(error: _E, redact: Callable[[str], str]) -> _E:
    """`error` itself without secrets: they are struck out of its message, fields and notes.

    A cause that has one is cut off: not every exception's text can be changed.
    """
    error.args = tuple(_struck(item, redact) for item in error.args)
    for name, value in list(vars(error).items()):  # its notes, too
        if name != "provider_id":
            vars(error)[name] = _struck(value, redact)
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            struck_error(inner, redact)
    for link in ("__cause__", "__context__"):
        follows: BaseException | None = getattr(error, link)
        if follows is not None and shows_secret(follows, redact):
            setattr(error, link, None)
    return error


def shows_secret(error: BaseException, redact: Callable[[str], str]) -> bool:
    """Whether a traceback of `error` would show a secret in the text of any exception."""
    texts = (text for one in chain_of(error) for text in traceback.format_exception_only(one))
    return any(redact(text) != text for text in texts)


def _struck(value: object, redact: Callable[[str], str], depth: int = _DEEPEST) -> object:
    """`value` with its texts redacted, however deep they are inside."""
    if isinstance(value, str):
        return redact(value)
    if depth < 0:
        return value
    if type(value) is dict:
        return {_struck(k, redact, depth - 1): _struck(v, redact, depth - 1) for k, v in value.items()}
    if type(value) is list or type(value) is tuple:
        struck = [_struck(item, redact, depth - 1) for item in value]
        return tuple(struck) if type(value) is tuple else struck
    return value


def shown_value(path: Iterable[object], value: object, secret: Iterable[str] = (), *, longest: int = 80) -> str:
    """What an error may show of a value in a config: "***" for one that is, or may be, a secret.

    path: the keys above it. secret: names of fields that are known to be secrets, beside those that sound like it.
    """
    names = [part for part in path if isinstance(part, str)]
    counts = isinstance(value, int | float) and names and names[-1].endswith("tokens")
    if not counts and ({*names} & {*secret} or any(sounds_secret(name) for name in names)):
        return "***"
    if isinstance(value, Mapping | list):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    text = repr(value)
    if "@" in text and "://" in text:  # up to the last @, as a password may hold anything
        text = re.sub(r"://.*@", "://***@", text, flags=re.DOTALL)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
