"""Secrets are replaced before anything of an exchange is kept."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from llamastack.provider.redaction import Redactor, sounds_secret, without_userinfo

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9_-]*\s+")
_BASIC = re.compile(r"^basic\s+", re.IGNORECASE)
_NO_SECRETS = ("idempotency-key", "sec-websocket-key")
_OF_THE_SUITE = ("conformance-", "Bearer conformance-")
_MOST_ENCODED = 32
_SHORTEST = 4
"""Characters. A shorter secret would be found in ordinary words."""
_STRUCK = "***"
Headers = Sequence[tuple[str, str]]


class Scrubber:
    """Replaces secrets by `***`: those that are known, and those that requests bring in their headers.

    secrets: of the config and of clients. url: of the backend, which may have a user and a password.
    """

    def __init__(self, secrets: Iterable[str], url: str) -> None:
        parts = urlsplit(url)
        self._known = {secret for secret in (*secrets, parts.username, parts.password) if secret}
        self._known |= {unquote(secret) for secret in self._known}
        self._known |= set(_in_query(parts.query))
        self._encoded: list[str] = []
        self._forms: frozenset[str] = frozenset()
        self._take(self._known)

    def learn(self, headers: Headers, target: str) -> None:
        """Take the secrets of a request: keys, tokens, cookies, credentials of Basic (RFC 7617), also in its query."""
        names = [(name, value) for name, value in headers if sounds_secret(name) and name.lower() not in _NO_SECRETS]
        found = {text for _, value in names for text in _of_header(value) if not text.startswith(_OF_THE_SUITE)}
        found |= set(_in_query(urlsplit(target).query))
        if new := found - self._known:
            self._known |= new
            self._take(new)

    def _take(self, secrets: set[str]) -> None:
        # Signatures of requests are new each time: encoded forms are looked for of the first ones only.
        self._encoded += sorted(secrets)[: max(0, _MOST_ENCODED - len(self._encoded))]
        self._redactor = Redactor([SecretStr(secret) for secret in self._encoded])
        self._forms |= self._redactor.forms | {secret for secret in secrets if len(secret) >= _SHORTEST}
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def text(self, text: str) -> str:
        """The text with every form of a secret replaced."""
        return text if self._pattern is None else self._pattern.sub(_STRUCK, text)

    def data(self, data: bytes) -> bytes:
        """A body with every form of a secret replaced. JSON in which one is behind escapes is written again."""
        try:
            text = self.text(data.decode())
        except UnicodeDecodeError:
            return self.text(data.decode("latin-1")).encode("latin-1")
        if self.remains_in(text):
            with suppress(ValueError, RecursionError):  # then it is no JSON
                text = json.dumps(self._inside(json.loads(text)), ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="surrogatepass")

    def _inside(self, value: Any) -> Any:
        """A value of JSON with every secret in its texts and names replaced."""
        if isinstance(value, dict):
            return {self._inside(name): self._inside(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._inside(inner) for inner in value]
        if not isinstance(value, str):
            return value
        text = self.text(value)
        return self._redactor(text) if self.remains_in(text) else text

    def pieces(self, pieces: Sequence[bytes]) -> list[bytes]:
        """The pieces of a body; one piece if a secret goes across two."""
        scrubbed = [self.data(piece) for piece in pieces]
        whole = self.data(b"".join(pieces))
        return scrubbed if b"".join(scrubbed) == whole else [whole]

    def remains_in(self, text: str) -> bool:
        """Whether a secret is still in the text, in any of its forms, also behind escapes."""
        return self._redactor(text) != without_userinfo(text)


def _of_header(value: str) -> list[str]:
    with suppress(UnicodeError):  # without UTF-8 in it, a header is latin-1
        value = value.encode("latin-1").decode()
    bare = _SCHEME.sub("", value.strip())
    found = [value.strip(), bare, *(part.strip().partition("=")[2] for part in value.split(";") if "=" in part)]
    if _BASIC.match(value.strip()):
        try:
            pair = base64.b64decode(bare, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        found += [pair, *pair.split(":", 1)]
    return [text for text in found if text]


def _in_query(query: str) -> list[str]:
    return [value for name, value in parse_qsl(query) if sounds_secret(name)]


def texts_of(value: object) -> list[str]:
    """Every text inside a value of plain types."""
    return [value] if isinstance(value, str) else [t for v in _inner(value) for t in texts_of(v)]


def _inner(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def as_text(value: object) -> str:
    """The JSON of a value, for a search."""
    return json.dumps(value, ensure_ascii=False)
