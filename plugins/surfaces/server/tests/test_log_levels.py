"""The levels of single loggers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from server_log import server_log

from llamastack_server import logs
from llamastack_server.log_levels import LEVEL_VARIABLE, LEVELS, LogLevels, log_levels_from

PACKAGES = ["llamastack_provider_x", "acme.plugin", "acme.other"]
LOGGERS = ("llamastack.access", "llamastack.stack", *PACKAGES, "acme.plugin.deep", "httpx", "uvicorn.error", "root")


@pytest.fixture(autouse=True)
def fresh_levels() -> Iterator[None]:
    """Loggers keep their level: other tests may have set one, and none is left behind."""
    for name in LOGGERS[:-1]:
        logging.getLogger(name).setLevel(logging.NOTSET)
    yield
    for name in LOGGERS[:-1]:
        logging.getLogger(name).setLevel(logging.NOTSET)


def levels_at(setting: str) -> dict[str, str]:
    with server_log(setting, packages=PACKAGES[:2]):
        logs.log_packages(PACKAGES[2:])
        return {name: logging.getLevelName(logging.getLogger(name).getEffectiveLevel()) for name in LOGGERS}


def test_the_default_is_for_our_loggers_and_plugins() -> None:
    ours = dict.fromkeys(LOGGERS, "INFO") | dict.fromkeys(("httpx", "uvicorn.error", "root"), "WARNING")
    assert levels_at("INFO") == ours
    assert levels_at("info") == ours
    assert levels_at("ERROR") == dict.fromkeys(LOGGERS, "ERROR") | {"uvicorn.error": "WARNING"}


@pytest.mark.parametrize(
    ("more", "changed"),
    [
        ("llamastack.access=WARNING", {"llamastack.access": "WARNING"}),
        ("httpx=DEBUG, llamastack_provider_x = error", {"httpx": "DEBUG", "llamastack_provider_x": "ERROR"}),
        ("acme.plugin.deep=DEBUG", {"acme.plugin.deep": "DEBUG"}),
        ("acme=ERROR", dict.fromkeys(("acme.plugin", "acme.other", "acme.plugin.deep"), "ERROR")),
        ("acme=ERROR,acme.plugin=DEBUG", {"acme.other": "ERROR", "acme.plugin": "DEBUG", "acme.plugin.deep": "DEBUG"}),
        ("llamastack=DEBUG", {"llamastack.access": "DEBUG", "llamastack.stack": "DEBUG"}),
        ("uvicorn=INFO", {"uvicorn.error": "INFO"}),
        ("root=INFO", {"httpx": "INFO", "root": "INFO"}),
    ],
)
def test_a_logger_has_the_level_that_was_chosen_for_it(more: str, changed: dict[str, str]) -> None:
    assert levels_at(f"INFO,{more}") == levels_at("INFO") | changed
    assert levels_at(more) == levels_at(f"INFO,{more}")


def test_the_next_levels_take_nothing_from_the_ones_before() -> None:
    before = levels_at("INFO")
    with server_log("INFO,httpx=DEBUG,acme=ERROR", packages=PACKAGES):
        assert levels_at("INFO") == before


def test_records_are_written_accordingly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, "WARNING,httpx=DEBUG,llamastack.access=INFO")
    with server_log(packages=PACKAGES) as log:
        for name in ("httpx", "llamastack.stack", "acme.plugin"):
            for level in (logging.DEBUG, logging.INFO, logging.WARNING):
                logging.getLogger(name).log(level, "a line")
        logs.log_access("GET", "/health", 200, 0.001)
        lines = [line.split(" ")[2:4] for line in log().splitlines()]
    assert lines == [
        ["DEBUG", "httpx"],
        ["INFO", "httpx"],
        ["WARNING", "httpx"],
        ["WARNING", "llamastack.stack"],
        ["WARNING", "acme.plugin"],
        ["INFO", "llamastack.access"],
    ]


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("loud", "'LOUD' is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("LOUD,httpx=DEBUG", "'LOUD' is not one of"),
        (",httpx=DEBUG", "'' is not one of"),
        ("INFO,", "'' is not of the form logger=level; only the first part may be a level alone"),
        ("httpx=DEBUG,INFO", "'INFO' is not of the form logger=level"),
        ("INFO,httpx=loud", "'LOUD' in 'httpx=loud' is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("INFO,httpx=", "'' in 'httpx=' is not one of"),
        ("INFO,httpx=DEBUG=INFO", "'DEBUG=INFO' in 'httpx=DEBUG=INFO' is not one of"),
        ("INFO,=DEBUG", "'=DEBUG' does not begin with the name of a logger"),
        ("INFO,a..b=DEBUG", "'a..b=DEBUG' does not begin with the name of a logger"),
        ("INFO,a b=DEBUG", "'a b=DEBUG' does not begin with the name of a logger"),
        ("INFO,a=DEBUG,a=INFO", "'a=INFO' gives the logger 'a' a second level"),
    ],
)
def test_a_wrong_part_is_named(setting: str, error: str) -> None:
    with pytest.raises(ValueError, match="^LLAMASTACK_LOG_LEVEL: ") as raised:
        log_levels_from(setting)
    assert error in str(raised.value)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_alone_is_the_default(level: str) -> None:
    assert log_levels_from(f" {level.lower()} ") == LogLevels(level, {})
