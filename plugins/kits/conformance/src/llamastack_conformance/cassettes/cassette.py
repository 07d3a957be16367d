"""The file of a cassette: JSON, one file for each provider type, made to be read in a diff."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

FORMAT = 1
"""Version of the file's format."""
MOST_BYTES = 20 * 2**20
"""Bytes of a cassette."""
MOST_BYTES_OF_AN_EXCHANGE = 8 * 2**20
"""Bytes of the bodies of a request and its answer."""


class CassetteError(Exception):
    """A cassette cannot be read or written."""


class End(StrEnum):
    """How an answer ended: it was whole, the client left before that, or the backend broke it off."""

    whole = "whole"
    left = "left"
    cut = "cut"


@dataclass(slots=True)
class Recorded:
    """A request and its answer.

    target: path and query. body: of the request. status: of the answer; 0 if the client left before it. headers: of the
    answer. pieces: its body as it came. framed: whether it came as a stream of pieces, without a length.
    """

    method: str
    target: str
    body: bytes
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    framed: bool = False
    end: End = End.left

    @property
    def answer(self) -> bytes:
        """The body of the answer."""
        return b"".join(self.pieces)

    def answered(self, status: int, headers: list[tuple[str, str]], *, framed: bool) -> None:
        """The head of the answer has come."""
        self.status, self.headers, self.framed = status, headers, framed

    def ended(self, end: End) -> None:
        """The answer has ended."""
        self.end = end


@dataclass(slots=True)
class Cassette:
    """The exchanges of one provider by the id of the check that they belong to.

    suite_version: of the checks. package, version: of the provider. left_out: checks that cannot be replayed, with the
    reason.
    """

    suite_version: str
    api: str
    provider_type: str
    package: str
    version: str
    checks: dict[str, list[Recorded]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def with_kept(self, before: Cassette) -> Cassette:
        """This one, with the checks of an earlier one that are not in it, in the order of their names."""
        checks = {**before.checks, **self.checks}
        left_out = {**{name: why for name, why in before.left_out.items() if name not in self.checks}, **self.left_out}
        return replace(self, checks={name: checks[name] for name in sorted(checks)}, left_out=left_out)

    def same_make(self, other: Cassette) -> bool:
        """Whether both were made by the same suite with the same version of the same provider."""
        return _make_of(self) == _make_of(other)


def _make_of(cassette: Cassette) -> tuple[str, ...]:
    return (cassette.suite_version, cassette.api, cassette.provider_type, cassette.package, cassette.version)


def to_json(cassette: Cassette) -> str:
    """The text of the file."""
    document = {
        "format": FORMAT,
        "suite_version": cassette.suite_version,
        "api": cassette.api,
        "provider_type": cassette.provider_type,
        "package": cassette.package,
        "version": cassette.version,
        "left_out": cassette.left_out,
        "checks": {name: [_exchange(each) for each in found] for name, found in cassette.checks.items() if found},
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Cassette:
    """The cassette in a text. Raises CassetteError if it is none."""
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise CassetteError(f"it has format {document['format']}, but only {FORMAT} is known; record it again")
        names = ("suite_version", "api", "provider_type", "package", "version", "left_out")
        checks = {name: [_recorded(each) for each in found] for name, found in document["checks"].items()}
        return Cassette(**{name: document[name] for name in names}, checks=checks)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CassetteError(f"this is no cassette: {type(error).__name__}: {error}") from None


def read(file: Path) -> Cassette:
    """Raises CassetteError."""
    try:
        data = file.read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise CassetteError(f"{file}: cannot be read: {error}") from None
    if len(data) > MOST_BYTES:
        raise CassetteError(f"{file}: it has more than {MOST_BYTES // 2**20} MiB")
    try:
        return from_json(text)
    except CassetteError as error:
        raise CassetteError(f"{file}: {error}") from None


def write(file: Path, cassette: Cassette) -> None:
    """Raises CassetteError, also when the cassette is too large; an earlier file stays then."""
    text = to_json(cassette)
    size = len(text.encode())
    if size > MOST_BYTES:
        largest = max(cassette.checks, key=lambda name: sum(len(each.answer) for each in cassette.checks[name]))
        raise CassetteError(
            f"{file}: the cassette would have {size / 2**20:.1f} MiB, and {MOST_BYTES // 2**20} are allowed; most of "
            f"it is of '{largest}'. Use a smaller model, or fewer tiers"
        )
    made = file.with_name(f"{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(text, encoding="utf-8", newline="\n")
        made.replace(file)
    except OSError as error:
        raise CassetteError(f"{file}: cannot be written: {error}") from None


# ---- one exchange ----------------------------------------------------------------------------------------------------


def _exchange(each: Recorded) -> dict[str, Any]:
    request: dict[str, Any] = {"method": each.method, "target": each.target}
    if each.body:
        request.update(_content(each.body, exact=False))
    answer: dict[str, Any] = {"status": each.status, "headers": dict(each.headers)}
    if each.framed:
        answer["pieces"] = [_content(piece) for piece in each.pieces]
    elif each.answer:
        answer.update(_content(each.answer))
    if each.end is not End.whole:
        answer["end"] = each.end.value
    return {"request": request, "answer": answer}


def _recorded(found: dict[str, Any]) -> Recorded:
    request, answer = found["request"], found["answer"]
    framed = "pieces" in answer
    parts: Sequence[dict[str, Any]] = answer["pieces"] if framed else [answer]
    return Recorded(
        request["method"],
        request["target"],
        _bytes(request),
        int(answer["status"]),
        list(answer["headers"].items()),
        [piece for part in parts if (piece := _bytes(part))],
        framed,
        End(answer.get("end", "whole")),
    )


def _content(data: bytes, *, exact: bool = True) -> dict[str, Any]:
    """A body as `json`, `text` or `base64`. exact: whether its bytes must come back as they are."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    try:
        value = json.loads(text)
        if isinstance(value, dict | list) and (not exact or _compact(value) == text):
            return {"json": value}
    except (ValueError, RecursionError):
        pass  # it is text then
    return {"text": text}


def _bytes(found: dict[str, Any]) -> bytes:
    if "json" in found:
        return _compact(found["json"]).encode(errors="surrogatepass")
    if "base64" in found:
        return base64.b64decode(found["base64"], validate=True)
    return str(found.get("text", "")).encode()


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
