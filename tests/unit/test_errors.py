"""Every error survives the wire as itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llamastack.provider import errors
from llamastack.provider.errors import (
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    ObjectNotFoundError,
    RateLimitError,
    UnsupportedModelError,
)
from llamastack.provider.errors_from_wire import error_from_wire


def family(root: type[LlamaStackError]) -> Iterator[type[LlamaStackError]]:
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from family(child)


def example(cls: type[LlamaStackError]) -> LlamaStackError:
    if issubclass(cls, ObjectNotFoundError):
        return cls("model", "m", available=["a", "b"], param="model")
    if issubclass(cls, errors.UnsupportedObjectError):
        return cls("m", available=["a"])
    return cls("something went wrong", provider_id="p", param="x.y")


@pytest.mark.parametrize("status", ["sent", "in a stream"])
@pytest.mark.parametrize("cls", list(family(LlamaStackError)))
def test_round_trip(cls: type[LlamaStackError], status: str) -> None:
    sent = example(cls)
    sent.provider_id = "p"
    got = error_from_wire(sent.status if status == "sent" else 0, sent.to_wire("id"))
    assert type(got) is cls
    assert (got.message, got.provider_id, got.param, str(got)) == (sent.message, "p", sent.param, sent.message)


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in family(LlamaStackError)]
    assert len(codes) == len(set(codes))


def test_every_error_stands_in_the_tree_of_the_module() -> None:
    for cls in family(LlamaStackError):
        if not issubclass(cls, errors.UnsupportedObjectError):
            assert f"{cls.__name__} " in (errors.__doc__ or ""), cls


def test_what_the_error_body_holds() -> None:
    assert RateLimitError("slow down", retry_after=3, provider_id="p").to_wire("id") == {
        "error": {
            "code": "rate_limited",
            "message": "slow down",
            "provider_id": "p",
            "request_id": "id",
            "retry_after": 3,
        }
    }


def test_details_come_back() -> None:
    limited = error_from_wire(429, RateLimitError("slow down", retry_after=3).to_wire())
    assert isinstance(limited, RateLimitError)
    assert limited.retry_after == 3
    fault = {"loc": ["a"], "msg": "bad", "type": "t"}
    invalid = error_from_wire(400, InvalidRequestError("bad", errors=[fault]).to_wire())
    assert isinstance(invalid, InvalidRequestError)
    assert invalid.errors == [fault]


@pytest.mark.parametrize("body", ["<html>", None, {"detail": "x"}, {"error": "text"}, 5])
def test_an_answer_without_an_error_object(body: Any) -> None:
    assert isinstance(error_from_wire(502, body), BackendError)


def test_an_unknown_code_falls_back_to_its_status() -> None:
    assert type(error_from_wire(404, {"error": {"code": "new", "message": "m"}})) is errors.NotFoundError


def test_long_listings_are_cut() -> None:
    error = UnsupportedModelError("x", available=[f"m{n:03}" for n in range(100)])
    assert error.message.endswith("m019 and 80 more")
