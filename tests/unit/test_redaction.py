"""No secret in what people read, in whatever form something repeats it."""

from __future__ import annotations

import base64
import html
import json
import logging
import sys
import traceback
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretBytes, SecretStr

from llamastack.provider.context import use_provider_data
from llamastack.provider.error_translation import as_stack_error
from llamastack.provider.errors import (
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    RateLimitError,
    raise_translated,
)
from llamastack.provider.redaction import Redactor, shown_value, without_known_secrets
from llamastack_server.log_formats import TextFormat


class Config(BaseModel):
    api_key: SecretStr | None = None
    certificate: SecretBytes | None = None
    headers: dict[str, Any] = {}
    url: str = ""


FORMS = {
    "as it is": str,
    "stripped": str.strip,
    "in one line": lambda s: " ".join(s.split()),
    "percent-encoded": lambda s: quote(s, safe=""),
    "percent-encoded but for slashes": quote,
    "percent-encoded in lower case": lambda s: quote(s, safe="").replace("%2F", "%2f").replace("%3D", "%3d"),
    "as a form": quote_plus,
    "twice percent-encoded": lambda s: quote(quote(s, safe=""), safe=""),
    "JSON": lambda s: json.dumps(s)[1:-1],
    "JSON with letters": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "JSON with slashes escaped": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "JSON inside JSON": lambda s: json.dumps(json.dumps(s))[1:-1],
    "every character escaped": lambda s: "".join(f"\\u{ord(c):04x}" if ord(c) < 65536 else c for c in s),
    "Python": lambda s: repr(s)[1:-1],
    "HTML": html.escape,
    "HTML numbers": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
}
# What is shorter is not looked for, as it would be found in ordinary words.
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=40).filter(
    lambda text: len(" ".join(text.split())) >= 4
)
AROUND = st.text(max_size=30)


@pytest.mark.parametrize("form", FORMS)
@given(secret=SECRETS, before=AROUND, after=AROUND)
@example(secret="sk-a/b+c=d\n", before="", after="")
@example(secret="*****", before="**", after="***")
@example(secret="p%41ss&amp;\\u0041\"'", before="%", after="\\")
def test_no_form_of_a_secret_is_left(form: str, secret: str, before: str, after: str) -> None:
    shown = FORMS[form](secret)
    assume(len(shown) >= 4)
    redact = Redactor(Config(api_key=SecretStr(secret)))
    clean = redact(f"{before}{shown}{after}")
    assert shown not in clean
    assert secret not in clean
    assert redact(clean) == clean


@given(secret=SECRETS, user=st.text(st.characters(codec="ascii"), max_size=9))
def test_nor_of_one_in_a_basic_authorization(secret: str, user: str) -> None:
    coded = base64.b64encode(f"{user}:{secret}".encode()).decode()
    clean = Redactor(Config(api_key=SecretStr(secret)))(f"Authorization: Basic {coded}")
    assert coded not in clean
    # Nothing can be decoded of it but for its edges, which hold bits of their neighbours.
    assert len(clean) - len("Authorization: Basic ***") <= len(base64.b64encode(f"{user}:".encode())) + 8


@given(st.text(max_size=200), SECRETS)
def test_what_has_no_secret_stays_as_it_is(text: str, secret: str) -> None:
    assume("@" not in text)
    assume(not any(piece in text for piece in (secret.strip()[:2], "%", "\\", "&")))
    assert Redactor(Config(api_key=SecretStr(secret)))(text) == text


def test_every_place_of_a_config_that_holds_one() -> None:
    redact = Redactor(
        Config(
            api_key=SecretStr("key-in-a-field\n"),
            certificate=SecretBytes(b"-----BEGIN KEY-----\nfirst-line-of-it\nsecond-line-of-it\n-----END KEY-----\n"),
            headers={"Authorization": "Bearer abcdefgh1", "nested": [{"apiKey": "camel-case-key"}], "n": "harmless-x"},
            url="postgres://admin:pass@word/x@host/db",
        )
    )
    text = "key-in-a-field|abcdefgh1|camel-case-key|first-line-of-it|second-line-of-it|pass@word/x|harmless-x"
    assert redact(text) == "***|***|***|***|***|***|harmless-x"
    assert redact("at http://user:pw@host/v1") == "at http://***@host/v1"


def test_those_of_the_request() -> None:
    redact = Redactor(Config())
    with use_provider_data({"acme_api_key": "client-key", "more": {"list": ["another-one"]}}):
        assert redact("client-key client%2Dkey another-one") == "*** *** ***"
    with use_provider_data({str(n): f"text-{n}-x" for n in range(5000)}):
        assert redact("text-4999-x") == "***"
    assert redact("client-key") == "client-key"


def echoing(kind: type[Any], secret: str) -> Any:
    error = kind(f"wrong: {secret}")
    error.param = f"headers.{secret}"
    error.backend_code = secret
    error.add_note(f"sent {secret}")
    return error


@pytest.mark.parametrize("kind", [InvalidRequestError, BackendError, RateLimitError])
def test_no_field_of_an_error_has_it(kind: type[Any]) -> None:
    redact = Redactor(Config(api_key=SecretStr("sk-hunter2")))
    error = echoing(kind, "sk-hunter2")
    if kind is InvalidRequestError:
        error.errors = [{"loc": ["a", "sk-hunter2"], "msg": "sk-hunter2", "type": "x"}]
    error.__cause__ = ValueError("sk-hunter2", {"deep": ["sk-hunter2"]})
    reported = as_stack_error(error, "p", "acme", redact)
    assert (
        "hunter2"
        not in f"{reported.to_wire()} {vars(reported)} {reported.args} {''.join(traceback.format_exception(reported))}"
    )


class Stubborn(Exception):
    """As pydantic's are: what it says is made when it is asked."""

    def __str__(self) -> str:
        return "input was sk-hunter2"


def traceback_of(error: Exception, redact: Redactor) -> str:
    """What a program prints of the error that it is told instead of `error`."""
    with pytest.raises(LlamaStackError) as caught:
        try:
            raise error
        except Exception as raised:
            raise_translated(raised, as_stack_error(raised, "p", "acme", redact))
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("cause", [ValueError("sk-hunter2"), Stubborn(), ConnectionError("at sk-hunter2")])
def test_no_traceback_has_it(cause: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    redact = Redactor(Config(api_key=SecretStr("sk-hunter2")))
    outer = RuntimeError("outer")
    outer.__cause__ = cause
    for error in (outer, cause):
        assert "hunter2" not in traceback_of(error, redact)
    assert "hunter2" not in caplog.text


def test_those_of_every_config_in_use_are_known() -> None:
    kept = Redactor(Config(api_key=SecretStr("sk-in-use")))
    assert without_known_secrets("sk-in-use") == "***"
    del kept
    assert without_known_secrets("sk-in-use") == "sk-in-use"


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        (("config", "api_key"), "sk-1234", "***"),
        (("config", "apiKey"), 1234, "***"),
        (("config", "headers", "Authorization"), "Bearer x", "***"),
        (("config", "credentials", "user"), "x", "***"),
        (("config", "tokens", 0), "x", "***"),
        (("config", "access_tokens"), "x", "***"),
        (("config", "DB_PASS"), "x", "***"),
        (("config", "max_tokens"), -1, "-1"),
        (("chunk_size_in_tokens",), 0, "0"),
        (("config", "url"), "http://u:p@ss/w@host/x", "'http://***@host/x'"),
        (("config", "port"), "x", "'x'"),
    ],
)
def test_what_an_error_shows_of_a_value(path: tuple[str | int, ...], value: object, shown: str) -> None:
    assert shown_value(path, value) == shown


def test_redacting_is_linear() -> None:
    redact = Redactor(Config(api_key=SecretStr("sk-" + "a" * 40)))
    for text in ("a" * 2**20, "%61" * 2**18, "\\u0061" * 2**16, "&#97;" * 2**16, "://" * 2**18):
        assert "sk-" not in redact(text)
    # Each replacement makes another secret out of what stands before it.
    assert Redactor(Config(api_key=SecretStr("a***")))("a" * 2**20 + "***") == "***"


def test_the_log_has_none_either() -> None:
    kept = Redactor(Config(api_key=SecretStr("sk-of-the-log")))
    record = logging.makeLogRecord({"msg": "sent %s", "args": ("sk-of-the-log",), "name": "of_a_provider"})
    try:
        raise RuntimeError("sk%2Dof%2Dthe%2Dlog")
    except RuntimeError:
        record.exc_info = sys.exc_info()
    line = TextFormat(None).format(record)
    assert "sent ***" in line
    assert "RuntimeError: ***" in line
    assert kept("") == ""
