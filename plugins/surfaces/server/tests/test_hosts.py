"""Names of hosts and origins: in requests, and in a run config."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack.stack import ConfigError, Stack
from llamastack_server.hosts import (
    Host,
    host_pattern,
    is_loopback,
    is_own,
    origin_pattern,
    read_host,
    read_origin,
)


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("localhost", "localhost", None),
        ("LocalHost:8321", "localhost", 8321),
        ("localhost.", "localhost", None),
        ("localhost:", "localhost", None),
        ("a.b-c_d.example:1", "a.b-c_d.example", 1),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("[::1]", "::1", None),
        ("[0:0:0:0:0:0:0:1]:8321", "::1", 8321),
        ("[FE80::1]", "fe80::1", None),
    ],
)
def test_hosts(text: str, name: str, port: int | None) -> None:
    assert read_host(text) == Host(name, port)


@pytest.mark.parametrize(
    "text",
    ["", ":80", "a b", "a/b", "u@localhost", "localhost:x", "localhost:99999", "localhost:-1", "[::1", "::1", "[::g]",
     "[127.0.0.1", "localhost..", ".localhost", "http://localhost", "*", "*.a", "a,b", "lo\xe7al", "a" * 300,
     "localhost\n", "localhost:1\n"],
)  # fmt: skip
def test_what_is_no_host(text: str) -> None:
    assert read_host(text) is None


@pytest.mark.parametrize(
    ("name", "loopback"),
    [
        ("localhost", True),
        ("a.b.localhost", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("notlocalhost", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback(name: str, loopback: bool) -> None:
    assert is_loopback(name) is loopback


@given(st.text())
def test_any_text_is_a_host_or_is_not(text: str) -> None:
    host = read_host(text)
    if host is not None:
        assert host.name
        assert host.name == host.name.lower()
    origin = read_origin(text)
    if origin is not None:
        assert "/" not in origin.host.name


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://localhost:8321", "localhost:8321", True),
        ("HTTP://LOCALHOST:8321", "localhost.:8321", True),
        ("http://stack.example", "stack.example:80", True),
        ("http://stack.example:80", "stack.example", True),
        ("https://stack.example", "stack.example", True),
        ("https://stack.example", "stack.example:443", True),
        ("http://[::1]:8321", "[0::1]:8321", True),
        ("https://stack.example", "stack.example:80", False),
        ("http://localhost", "localhost:8321", False),
        ("http://localhost:8322", "localhost:8321", False),
        ("http://127.0.0.1:8321", "localhost:8321", False),
        ("http://evil.example", "localhost:8321", False),
    ],
)
def test_a_servers_own_pages(origin: str, host: str, own: bool) -> None:
    page, server = read_origin(origin), read_host(host)
    assert page is not None
    assert server is not None
    assert is_own(page, server) is own


@pytest.mark.parametrize(
    ("pattern", "fits", "not_fits"),
    [
        ("stack.example", ["stack.example", "STACK.example.:8321"], ["a.stack.example", "stack.example.evil"]),
        ("Stack.Example:8321", ["stack.example:8321"], ["stack.example", "stack.example:80"]),
        ("*.stack.example", ["a.stack.example", "a.b.stack.example:1"], ["stack.example", "astack.example"]),
        ("*", ["anything", "[::1]:5"], []),
        ("10.0.0.7", ["10.0.0.7:8321"], ["10.0.0.70"]),
        ("fd00::1", ["[fd00:0::1]:8321"], ["[fd00::2]"]),
        ("[fd00::1]:5", ["[fd00::1]:5"], ["[fd00::1]"]),
    ],
)
def test_patterns_of_hosts(pattern: str, fits: list[str], not_fits: list[str]) -> None:
    made = host_pattern(pattern)
    for names, expected in ((fits, True), (not_fits, False)):
        for name in names:
            host = read_host(name)
            assert host is not None
            assert made.fits(host) is expected, name


@pytest.mark.parametrize(
    ("pattern", "fits", "not_fits"),
    [
        (
            "https://app.example.com",
            ["https://app.example.com", "HTTPS://App.Example.com", "https://app.example.com:443"],
            ["http://app.example.com", "https://app.example.com:8443", "https://a.app.example.com"],
        ),
        ("https://App.example.com:443", ["https://app.example.com"], ["https://app.example.com:80"]),
        ("http://localhost:*", ["http://localhost", "http://localhost:3000"], ["https://localhost:1", "http://evil:1"]),
        ("https://*.example.com", ["https://a.example.com"], ["https://example.com", "https://a.example.com:1"]),
        ("http://*:3000", ["http://a.b:3000"], ["http://a.b:3001"]),
        ("chrome-extension://abcdef", ["chrome-extension://abcdef"], ["chrome-extension://abcdeg"]),
        ("chrome-extension://*", ["chrome-extension://abc"], ["moz-extension://abc"]),
        ("app://obsidian.md", ["app://obsidian.md"], ["app://other"]),
        ("file://", ["file://"], ["app://"]),
    ],
)
def test_patterns_of_origins(pattern: str, fits: list[str], not_fits: list[str]) -> None:
    made = origin_pattern(pattern)
    for names, expected in ((fits, True), (not_fits, False)):
        for name in names:
            origin = read_origin(name)
            assert origin is not None, name
            assert made.fits(origin) is expected, name


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        (
            "allowed_hosts",
            ["http://stack.example"],
            "'http://stack.example' is not a host; allowed: a name or an address",
        ),
        ("allowed_hosts", ["ok.example", "a/b"], "server.allowed_hosts[1]: "),
        ("allowed_hosts", [""], "'' is not a host"),
        ("allowed_hosts", ["a.*.example"], "is not a host"),
        ("allowed_hosts", "stack.example", "server.allowed_hosts: "),
        ("allowed_origins", ["app.example.com"], "'app.example.com' is not an origin; allowed: scheme://host"),
        ("allowed_origins", ["https://app.example.com/"], "without a path"),
        ("allowed_origins", ["https://app.example.com/x"], "without a path"),
        ("allowed_origins", ["null", "Null"], "server.allowed_origins[1]: "),
        ("allowed_origins", ["https://"], "is not an origin"),
        ("allowed_origins", ["https://u:p@app.example.com"], "is not an origin"),
        ("allowed_origins", ["https://a*.example.com"], "is not an origin"),
        ("allowed_origins", "*", "server.allowed_origins: "),
        ("max_head_bytes", 0, "server.max_head_bytes: "),
        ("max_buffered_bytes", -1, "server.max_buffered_bytes: "),
        ("head_timeout_s", -1, "server.head_timeout_s: "),
        ("body_timeout_s", "soon", "server.body_timeout_s: "),
        ("idle_timeout_s", float("nan"), "server.idle_timeout_s: "),
        ("unread_timeout_s", float("inf"), "server.unread_timeout_s: "),
        ("worker_timeout_s", -0.5, "server.worker_timeout_s: "),
    ],
)
def test_wrong_settings_are_refused_with_their_path(setting: str, value: Any, says: str) -> None:
    config = {"providers": {"inference": []}, "server": {setting: value}}
    with pytest.raises(ConfigError) as caught:
        Stack.from_config(config)
    assert says in str(caught.value)
    assert f"server.{setting}" in str(caught.value)


@pytest.mark.parametrize("value", [None, 0, 0.5])
def test_time_limits_may_be_off(value: float | None) -> None:
    names = ("head_timeout_s", "body_timeout_s", "idle_timeout_s", "unread_timeout_s", "worker_timeout_s")
    providers = {"inference": [{"provider_id": "a", "provider_type": "remote::sample"}]}
    stack = Stack.from_config({"providers": providers, "server": dict.fromkeys(names, value)})
    assert stack.config.run.server.head_timeout_s == value
