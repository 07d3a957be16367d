"""Error answers of backends, whatever form they have, as errors of the family; and the waits that they ask for."""

from __future__ import annotations

import email.utils
import json
import ssl
import time
from collections.abc import Iterator

import anyio
import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack.http.retry_headers import retry_after_of
from llamastack.provider.connection_errors import connection_error, is_http_error, reason_at
from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    ContextLengthExceededError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llamastack_adapters.error_bodies import (
    error_in,
    error_of_answer,
    error_of_event,
    error_of_status,
    parse_error_body,
)
from llamastack_adapters.rate_limit_retries import Retries

pytestmark = pytest.mark.anyio
WHERE = "http://gpu-1:8080"


@pytest.mark.parametrize(
    ("body", "message", "param", "code"),
    [
        ({"error": {"message": "no", "param": "top_p", "code": "bad", "type": "t"}}, "no", "top_p", "bad"),
        ({"error": {"message": "no", "param": None, "code": 400}}, "no", None, "400"),
        ({"error": "no", "error_type": "validation"}, "no", None, "validation"),
        ({"error_code": "GONE", "message": "no"}, "no", None, "GONE"),
        ({"detail": [{"msg": "no"}]}, "no", None, ""),
        ({"object": "error", "message": "no", "type": "t", "code": 404}, "no", None, "t"),
        ("no", "no", None, ""),
        ([1], "[1]", None, ""),
    ],
)
def test_every_form_of_an_error_body(body: object, message: str, param: str | None, code: str) -> None:
    assert parse_error_body(json.dumps(body))[:4] == (message, param, code, True)


def test_the_code_of_an_error_as_openai_has_it() -> None:
    def code_in(body: object) -> str | None:
        return error_of_answer(400, {}, json.dumps(body), WHERE).backend_code

    assert code_in({"error": {"message": "no", "code": "content_policy_violation"}}) == "content_policy_violation"
    assert code_in({"error": {"message": "no", "code": 400}}) is None
    assert code_in({"message": "no", "code": "ValidationException"}) is None
    assert error_of_event({"message": "no", "code": "oom"}, WHERE).backend_code == "oom"


def test_a_page_is_no_error_object() -> None:
    assert parse_error_body(b"<html><h1>502 Bad  Gateway</h1>\n</html>") == (
        "502 Bad Gateway",
        None,
        "",
        False,
        None,
        None,
        "",
    )
    assert parse_error_body(b"\xff\xfe")[3] is False
    assert parse_error_body("x " * 5000).message == " ".join("x" * 5000)  # shortened by the stack, when it is redacted


@given(st.binary(max_size=200), st.integers(300, 599))
def test_any_body_with_any_status_is_an_error_of_the_family(body: bytes, status: int) -> None:
    error = error_of_answer(status, {}, body, WHERE)
    assert isinstance(error, LlamaStackError)
    assert error.message.startswith(WHERE)
    assert error.provider_id is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_any_error_event_is_an_error_of_the_family(error: object) -> None:
    assert error_of_event(error, "the backend").message.startswith("the backend broke off")


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "request (5010 tokens) exceeds the available context size (2048 tokens), try increasing it",
        "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
        "`inputs` must have less than 1024 tokens. Given: 5000",
        "Input is too long for requested model.",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "the input length exceeds the context length",
    ],
)
def test_a_prompt_that_is_too_long_in_the_words_of_many(message: str) -> None:
    assert isinstance(error_of_status(400, message), ContextLengthExceededError)
    assert isinstance(error_of_status(422, "x", code="context_length_exceeded"), ContextLengthExceededError)
    assert not isinstance(error_of_status(503, message), ContextLengthExceededError)


def test_a_page_instead_of_an_answer_means_a_wrong_url() -> None:
    page = error_of_answer(404, {}, b"<h1>Not Found</h1>", WHERE)
    assert isinstance(page, BackendError)
    assert page.message == f"{WHERE} answered 404: Not Found; is the url in the config right?"
    assert isinstance(error_of_answer(404, {}, b'{"error": {"message": "no such model"}}', WHERE), NotFoundError)
    assert isinstance(error_of_answer(401, {}, b"", WHERE), AuthenticationError)
    assert error_of_answer(401, {}, b"", WHERE).message == f"{WHERE} answered 401"
    bad = error_of_answer(422, {}, b'{"error": {"message": "no", "param": "stop"}}', WHERE)
    assert isinstance(bad, InvalidRequestError)
    assert bad.param == "stop"


def test_retry_after() -> None:
    assert retry_after_of({}) is None
    assert retry_after_of({"retry-after": "2.5"}) == 2.5
    assert retry_after_of({"retry-after": "soon"}) is None
    assert retry_after_of({"retry-after": "nan"}) is None
    assert retry_after_of({"retry-after": "inf"}) is None
    assert retry_after_of({"retry-after": "-3"}) == 0
    assert retry_after_of({"retry-after": "99999999999999999999"}) == 86_400
    assert retry_after_of({"retry-after": "9" * 5000}) is None
    assert retry_after_of({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}) == 86_400
    assert retry_after_of({"retry-after": "Mon, 01 Jan 0001 00:00:00 GMT"}) in (0, None)
    assert retry_after_of({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after_of({"retry-after-ms": "-1"}) == 0
    assert retry_after_of({"retry-after-ms": "soon", "retry-after": "9"}) == 9
    in_a_minute = retry_after_of({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)})
    assert in_a_minute is not None
    assert 50 < in_a_minute <= 60
    error = error_of_answer(429, {"retry-after": "7"}, b"", WHERE)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 7


@given(st.text(max_size=40))
def test_any_retry_after_is_a_sane_wait_or_none(value: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        wait = retry_after_of({name: value})
        assert wait is None or 0 <= wait <= 86_400


_WORDS: list[tuple[dict[str, object], type[LlamaStackError]]] = [
    ({"code": 429}, RateLimitError),
    ({"code": "429"}, RateLimitError),
    ({"code": 429.0}, RateLimitError),
    ({"code": "rate_limit_exceeded"}, RateLimitError),
    ({"code": "insufficient_quota", "type": "insufficient_quota"}, RateLimitError),
    ({"code": None, "type": "rate_limit_error"}, RateLimitError),
    ({"type": "RateLimitError"}, RateLimitError),
    ({"status": "RESOURCE_EXHAUSTED", "code": 429}, RateLimitError),
    ({"status": "RESOURCE_EXHAUSTED"}, RateLimitError),
    ({"status": 429}, RateLimitError),
    ({"code": "ThrottlingException"}, RateLimitError),
    ({"code": "tokens", "type": "tokens"}, RateLimitError),
    ({"code": 500, "type": "rate_limit_error"}, RateLimitError),
    ({"http_status_code": 429}, RateLimitError),
    ({"http_code": 429}, RateLimitError),
    ({"code": "HTTP_429"}, RateLimitError),
    ({"status": "429 Too Many Requests"}, RateLimitError),
    ({"code": "429abc"}, BackendError),
    ({"code": "42900"}, BackendError),
    ({"code": "context-length-exceeded"}, ContextLengthExceededError),
    ({"code": "ContextLengthExceeded"}, ContextLengthExceededError),
    ({"code": "context_length_exceeded", "type": "invalid_request_error"}, ContextLengthExceededError),
    ({"code": 400, "type": "exceed_context_size_error"}, ContextLengthExceededError),
    ({"code": 400, "type": "BadRequestError"}, InvalidRequestError),
    ({"type": "invalid_request_error"}, InvalidRequestError),
    ({"status": "INVALID_ARGUMENT"}, InvalidRequestError),
    ({"code": "invalid_api_key", "type": "invalid_request_error"}, AuthenticationError),
    ({"type": "authentication_error"}, AuthenticationError),
    ({"status": "UNAUTHENTICATED"}, AuthenticationError),
    ({"code": "PermissionDenied"}, PermissionDeniedError),
    ({"code": "model_not_found"}, NotFoundError),
    ({"type": "overloaded_error"}, ProviderUnavailableError),
    ({"code": 529}, ProviderUnavailableError),
    ({"code": "server_error", "type": "server_error"}, BackendError),
    ({"code": 503, "type": "server_error"}, ProviderUnavailableError),
    ({"status": "DEADLINE_EXCEEDED"}, ProviderTimeoutError),
    ({"code": "a word of its own"}, BackendError),
    ({"code": 200}, BackendError),
    ({"code": True}, BackendError),
    ({}, BackendError),
]


@pytest.mark.parametrize(("refusal", "kind"), _WORDS)
def test_what_an_error_without_a_status_is_told_by_its_words(
    refusal: dict[str, object], kind: type[LlamaStackError]
) -> None:
    inner = {"message": "no", **refusal}
    for answer in (
        {"error": inner},
        [{"error": inner}],
        {"type": "error", "error": inner},
        {"error": {"error": inner}},
        {"success": False, "errors": [inner]},
    ):
        error = error_in(answer)
        assert error is not None
        made = error_of_event(error, "it")
        assert (type(made), made.message) == (kind, "it broke off: no")
    assert type(error_of_event(inner, "it")) is kind
    assert type(error_of_event(error_in({"error": "no", **refusal}), "it")) is kind
    answered = BackendError if kind is InvalidRequestError else kind  # what a 500 says of the request says little
    assert type(error_of_answer(500, {}, json.dumps({"error": inner}), WHERE)) is answered


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{}], "error": None},
        {"choices": [{}], "message": "hi"},
        {"data": [{}], "detail": "x"},
        {"choices": [], "usage": {}},
        {},
        [],
        [1, 2],
        "error",
        {"error": ""},
        {"errors": []},
        {"choices": [{}], "errors": [{"message": "x"}]},
    ],
)
def test_what_is_no_error(answer: object) -> None:
    assert error_in(answer) is None


@pytest.mark.parametrize("text", ["<" * 40_000, "<a" * 20_000, "<" + "a" * 400_000, "< " * 200_000, '{"a' * 100_000])
def test_a_long_error_body_is_read_in_linear_time_and_cut(text: str) -> None:
    started = time.process_time()
    error = error_of_answer(500, {}, text, WHERE)
    assert time.process_time() - started < 0.1
    assert len(error.message) < 70_000  # the stack shortens it when it is redacted


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    body = b'{"error": {"message": "bad text: \\ud83d here", "code": "a\\udc00"}}'
    error = error_of_answer(400, {}, body, WHERE)
    assert error.message == f"{WHERE} answered 400: bad text: \ufffd here"


# ---- waiting -----------------------------------------------------------------------------------------------------


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that were slept, without sleeping."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return slept  # type: ignore[return-value]


class Failing:
    """A call that raises these errors, one after the other, and then gives 7."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


def _told_not_to(error: LlamaStackError) -> LlamaStackError:
    error.should_retry = False
    return error


async def test_no_backend_makes_the_next_attempt_follow_at_once(naps: list[float]) -> None:
    call = Failing(*[RateLimitError("slow", retry_after=0)] * 9)
    with pytest.raises(RateLimitError):
        await Retries(3, 1).run(call)
    assert len(naps) == 3
    assert min(naps) >= 0.25
    call = Failing(RateLimitError("slow"))
    with pytest.raises(RateLimitError):
        await Retries(3, 0).run(call)
    assert (call.calls, len(naps)) == (1, 3)


async def test_a_rate_limit_is_tried_again(naps: list[float]) -> None:
    call = Failing(RateLimitError("slow", retry_after=3), RateLimitError("slow"))
    assert await Retries(2, 10).run(call) == 7
    assert 3 <= naps[0] <= 3.3
    assert 0.5 <= naps[1] <= 1


async def test_there_is_an_end_to_it(naps: list[float]) -> None:
    call = Failing(*[RateLimitError("slow")] * 9)
    with pytest.raises(RateLimitError):
        await Retries(3, 1).run(call)
    assert call.calls == 4
    assert all(nap <= 1 for nap in naps)


@pytest.mark.parametrize(
    "error",
    [
        RateLimitError("slow", retry_after=11),
        _told_not_to(RateLimitError("slow")),
        ProviderUnavailableError("down"),
        BackendError("odd"),
        ValueError("x"),
    ],
)
async def test_what_is_not_tried_again(naps: list[float], error: Exception) -> None:
    call = Failing(error)
    with pytest.raises(type(error)):
        await Retries(2, 10).run(call)
    assert (call.calls, naps) == (1, [])


async def test_no_retries(naps: list[float]) -> None:
    call = Failing(RateLimitError("slow"))
    with pytest.raises(RateLimitError):
        await Retries(0).run(call)
    assert call.calls == 1


# ---- failed exchanges --------------------------------------------------------------------------------------------


def test_the_errors_of_httpx_and_of_its_successor() -> None:
    for library in (httpx, httpx2):
        assert is_http_error(library.ReadTimeout("x"))
        for error, kind in (
            (library.ConnectError("x"), ProviderUnavailableError),
            (library.ReadTimeout("x"), ProviderTimeoutError),
            (library.RemoteProtocolError("x"), BackendError),
        ):
            assert type(connection_error(error, "too slow")) is kind
    assert not is_http_error(ValueError("x"))
    assert not is_http_error(type("HTTPError", (Exception,), {})("of somebody else"))


def test_a_failure_of_tls_is_called_so() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    assert reason_at(error, WHERE) == f"TLS failed (self-signed certificate) at {WHERE}"
