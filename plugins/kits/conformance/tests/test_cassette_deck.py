"""The recorder and the replayer by themselves: what is kept of an exchange, what is replaced, and what matches."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from backends.serving import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llamastack_conformance.cassettes import cassette as files
from llamastack_conformance.cassettes import deck
from llamastack_conformance.cassettes.cassette import Cassette, CassetteError
from llamastack_conformance.cassettes.session import CassetteSession
from llamastack_conformance.checks import Check as Described
from llamastack_conformance.checks import CheckFailure, Tier
from llamastack_conformance.provider_under_test import Subject

NOWHERE = "http://127.0.0.1:9"
KEY, PASSWORD, COOKIE, IN_QUERY = "sk-config-öf-1234567", "pässword-7654", "session-cookie-9876", "query-key-456789"
SECRETS = (KEY, PASSWORD, COOKIE, IN_QUERY)
CHECK = Described("some.check", Tier.live, "1.0", "it works", "mend it")
PIECES = [f"data: Zürich {number}\n\n".encode() for number in range(4)]
SPLIT = [*PIECES, b"data: \xf0\x9f", b"\xa6\x99\n\n"]


class _Backend:
    """Keeps texts by name, and repeats what it is sent."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    async def echo(self, request: Request) -> Response:
        body = (await request.body()).decode()
        shown = {"headers": dict(request.headers), "url": str(request.url), "body": body}
        return JSONResponse(shown, 401, {"set-cookie": f"a={COOKIE}", "retry-after": "3", "x-secret": KEY})

    async def double(self, request: Request) -> Response:
        number = (await request.json())["number"]
        await anyio.sleep(0.001 * (number % 7))
        return JSONResponse({"double": 2 * number})

    async def keep(self, request: Request) -> Response:
        asked = await request.json()
        self.kept += [asked["id"]] if "id" in asked else []
        return JSONResponse({"ids": self.kept})

    async def stream(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in SPLIT:
                yield piece
                await anyio.sleep(0.01)
            if "endless" in request.query_params:
                await anyio.sleep(60)

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def large(self, request: Request) -> Response:
        return Response(b"x" * int(request.query_params["bytes"]), media_type="text/plain")

    async def escaped(self, _: Request) -> Response:
        inner = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
        return Response(f"he said {inner}", media_type="text/plain")


@contextmanager
def backend() -> Iterator[str]:
    made = _Backend()
    names = ("echo", "double", "keep", "stream", "large", "escaped")
    with serving(Starlette(routes=[Route(f"/{n}", getattr(made, n), methods=["GET", "POST"]) for n in names])) as url:
        yield url


@contextmanager
def session(url: str, file: Path, *, records: bool = False) -> Iterator[tuple[CassetteSession, str]]:
    """A session of a provider that is never started, and the URL that the provider would get."""
    config = {"url": url, "api_key": KEY}
    document = {"providers": {"inference": [{"provider_id": "o", "provider_type": "remote::openai", "config": config}]}}
    subject = Subject("inference", "remote::openai", document)
    made = CassetteSession(subject, file, records=records)
    with made.open():
        yield made, subject.require_backend()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "c.json"


# ---- secrets ---------------------------------------------------------------------------------------------------------


def ask_with_secrets(url: str) -> httpx.Response:
    headers = {"x-api-key": KEY.encode(), "cookie": f"id={COOKIE}"}
    pair = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    body = {"key": KEY, "password": PASSWORD, "quoted": json.dumps(KEY), "text": "stays"}
    return httpx.post(
        f"{url}/echo?api_key={IN_QUERY}&page=2", headers={**headers, "authorization": f"Basic {pair}"}, json=body
    )


def test_no_secret_is_recorded(file: Path) -> None:
    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        told = ask_with_secrets(moved)
    text = file.read_text()
    for secret in SECRETS:
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text
        assert base64.b64encode(secret.encode()).decode()[:-4] not in text
    assert told.status_code == 401
    assert KEY in told.json()["body"]  # the provider itself gets what its backend said
    [exchange] = json.loads(text)["checks"]["some.check"]
    assert exchange["request"]["target"] == "/echo?api_key=***&page=2"
    assert exchange["request"]["json"]["text"] == "stays"
    assert exchange["answer"]["headers"] == {"content-type": "application/json", "retry-after": "3"}


def test_what_was_recorded_with_secrets_is_found_with_others(file: Path) -> None:
    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        before = ask_with_secrets(moved)
    with session(NOWHERE, file) as (made, moved), made.check(CHECK):
        after = ask_with_secrets(moved)
    assert (after.status_code, after.headers["retry-after"]) == (before.status_code, "3")
    assert "stays" in after.text


def test_user_and_password_of_the_url(file: Path) -> None:
    with backend() as url:
        with_user = url.replace("://", "://someone:url-password-1@")
        with session(with_user, file, records=True) as (made, moved), made.check(CHECK):
            told = httpx.get(f"{moved}/echo").json()
    pair = base64.b64encode(b"someone:url-password-1").decode()
    assert told["headers"]["authorization"] == f"Basic {pair}"
    assert "url-password-1" not in file.read_text()
    assert pair not in file.read_text()


def test_a_secret_that_cannot_be_replaced_is_not_written(file: Path) -> None:
    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        httpx.get(f"{moved}/escaped")
    [fault] = made.faults
    assert "an exchange of 'some.check' (GET /escaped) holds a secret" in fault
    assert not file.exists()


# ---- matching --------------------------------------------------------------------------------------------------------


def test_concurrent_requests_match_by_their_bodies(file: Path) -> None:
    numbers = list(range(50))

    async def ask(url: str, order: list[int]) -> dict[int, int]:
        found = {}

        async def one(number: int) -> None:
            found[number] = (await client.post(f"{url}/double", json={"number": number})).json()["double"]

        async with httpx.AsyncClient(timeout=30) as client, anyio.create_task_group() as group:
            for number in order:
                group.start_soon(one, number)
        return found

    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        anyio.run(ask, moved, numbers)
    with session(NOWHERE, file) as (made, moved), made.check(CHECK):
        assert anyio.run(ask, moved, numbers[::-1]) == {number: 2 * number for number in numbers}
    assert "up to date" in made.notes[0]


def test_equal_requests_get_their_answers_in_order_with_the_ids_of_the_replay(file: Path) -> None:
    def ask(url: str) -> tuple[list[str], list[Any]]:
        ids = [uuid.uuid4().hex, str(uuid.uuid4())]
        bodies: list[dict[str, str]] = [{}, {}, {"id": ids[0]}, {}, {"id": ids[1]}, {}, {}]
        return ids, [httpx.post(f"{url}/keep", json=body).json()["ids"] for body in bodies]

    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        ask(moved)
    with session(NOWHERE, file) as (made, moved), made.check(CHECK):
        (one, two), found = ask(moved)
    assert found == [[], [], [one], [one], [one, two], [one, two], [one, two]]


def test_polls_more_often_than_recorded_do_not_run_ahead(file: Path) -> None:
    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        for body in ({}, {"id": "first"}, {}):
            httpx.post(f"{moved}/keep", json=body)
    with session(NOWHERE, file) as (made, moved), made.check(CHECK):
        found = [httpx.post(f"{moved}/keep", json=body).json()["ids"] for body in ({}, {}, {}, {"id": "first"}, {}, {})]
    assert found == [[], [], [], ["first"], ["first"], ["first"]]


def test_a_request_without_an_answer_fails_the_check_whatever_it_found(file: Path) -> None:
    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        httpx.post(f"{moved}/double", json={"number": 1})
    with session(NOWHERE, file) as (made, moved):
        with (
            pytest.raises(CheckFailure, match=r'has no answer to POST /double \{"number":2\}') as caught,
            made.check(CHECK),
        ):
            assert httpx.post(f"{moved}/double", json={"number": 2}).status_code == 501
            raise CheckFailure("something else")
        with made.check(CHECK):
            assert httpx.post(f"{moved}/double", json={"number": 1}).json() == {"double": 2}
    assert "record again" in str(caught.value.mend)


# ---- streams and bounds ----------------------------------------------------------------------------------------------


def pieces_of(url: str) -> list[bytes]:
    with httpx.stream("GET", f"{url}/stream") as answer:
        return list(answer.iter_raw())


def test_the_pieces_of_a_stream_stay_pieces(file: Path) -> None:
    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        pieces_of(moved)
    [exchange] = json.loads(file.read_text())["checks"]["some.check"]
    assert exchange["answer"]["pieces"][0] == {"text": "data: Zürich 0\n\n"}
    assert exchange["answer"]["pieces"][-1].keys() == {"base64"}
    assert b"".join(piece for each in files.read(file).checks["some.check"] for piece in each.pieces) == b"".join(SPLIT)
    with session(NOWHERE, file) as (made, moved), made.check(CHECK):
        assert b"".join(pieces_of(moved)) == b"".join(SPLIT)


def test_a_client_that_left_is_not_answered_to_the_end(file: Path) -> None:
    def first_of(url: str) -> bytes:
        with httpx.stream("GET", f"{url}/stream?endless=") as answer:
            return next(answer.iter_raw())

    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        first = first_of(moved)
    assert json.loads(file.read_text())["checks"]["some.check"][0]["answer"]["end"] == "left"
    with session(NOWHERE, file) as (made, moved), made.check(CHECK):
        assert first_of(moved)[: len(first)] == first


def test_a_check_with_a_large_answer_is_left_out(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck, "MOST_BYTES_OF_AN_EXCHANGE", 2**20)
    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        assert len(httpx.get(f"{moved}/large?bytes={3 * 2**20}").content) == 3 * 2**20
    found = files.read(file)
    assert found.checks == {}
    assert "more than 1 MiB: GET /large" in found.left_out["some.check"]


def test_a_cassette_that_is_too_large_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 2**20)
    with backend() as url, session(url, file, records=True) as (made, moved), made.check(CHECK):
        for number in range(2):
            httpx.get(f"{moved}/large?bytes={600_000 + number}")
    [fault] = made.faults
    assert "1.1 MiB, and 1 are allowed; most of it is of 'some.check'" in fault
    assert not file.exists()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(CassetteError, match="cannot be written"):
        files.write(tmp_path / "taken" / "c.json", Cassette("1.0", "inference", "t", "p", "1"))
