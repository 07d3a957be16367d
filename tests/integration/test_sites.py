"""Which hosts a request may be for, and which web pages may send one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from raw_client import RawClients, request
from scripted_stacks import Scripts
from served_stack import served_script
from starlette.testclient import TestClient

from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery
from llamastack_server.app import create_app

pytestmark = pytest.mark.anyio
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
ROUTES = [
    ("GET", "/health"),
    ("GET", "/docs"),
    ("GET", "/"),
    ("GET", "/openapi.json"),
    ("HEAD", "/health"),
    ("GET", "/nothing"),
    ("OPTIONS", "/health"),
    ("DELETE", "/health"),
    ("GET", "/v1/models"),
    ("GET", "/v1/nothing"),
    ("POST", "/inference/chat_completion"),
    ("POST", "/v1/chat/completions"),
]
PAGE = "https://app.example.com"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8321", "EVIL.example.", "localhost.evil.example", "notlocalhost", "0.0.0.0",
     "10.0.0.1", "[fe80::1]:8321"],
)  # fmt: skip
async def test_on_a_loopback_address_other_hosts_are_refused(discovery: Discovery, script: Scripts, host: str) -> None:
    """A page of evil.example whose name is made to point here would be allowed all that the server's own pages are."""
    a = script("a")
    async with served_script(discovery) as client, RawClients(client) as raw:
        for method, path in ROUTES:
            asked = await raw.ask(request(method, path, json.dumps(CHAT).encode(), f"Origin: http://{host}", host=host))
            assert asked.statuses == [403], (method, path)
            assert "x-request-id: " in asked.head
            if method != "HEAD":
                error = json.loads(asked.body)["error"]
                assert "server.allowed_hosts" in error["message"]
                assert error["code"] == "permission_denied"
                assert ("type" in error) is path.startswith("/v1")
        assert not [call for call in a.calls if call[0] == "chat_completion"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1234", "localhost.", "stack.localhost:8321", "127.0.0.1:8321", "127.8.9.1", "[::1]:8321",
     "[0:0::1]"],
)  # fmt: skip
async def test_this_machines_own_names_are_allowed(discovery: Discovery, script: Scripts, host: str) -> None:
    script("a")
    async with served_script(discovery) as client, RawClients(client) as raw:
        for path in ("/health", "/v1/models"):
            for _ in range(2):  # the second time it is known
                assert (await raw.ask(request("GET", path, host=host))).statuses == [200]


@pytest.mark.parametrize("host", ["", "a b", "local/host", "user@localhost", "[::1", "localhost:http", "loc\xe4lhost"])
async def test_a_host_that_is_none(discovery: Discovery, script: Scripts, host: str) -> None:
    script("a")
    async with served_script(discovery) as client, RawClients(client) as raw:
        asked = await raw.ask(request("GET", "/health", host=host))
        assert asked.statuses == [400]
        assert "the header 'Host' is not a host" in json.loads(asked.body)["error"]["message"]


async def test_no_host_and_two(discovery: Discovery, script: Scripts) -> None:
    script("a")
    for settings in ({}, {"allowed_hosts": ["*"]}):
        async with served_script(discovery, server=settings) as client, RawClients(client) as raw:
            none = await raw.ask(request("GET", "/health", host=None))
            two = await raw.ask(request("GET", "/health", b"", "Host: localhost"))
            assert (none.statuses, two.statuses) == ([400], [400])
            assert "no header 'Host'" in none.answer.decode()
            assert "more than one header 'Host'" in two.answer.decode()
            old = await raw.ask(b"GET /health HTTP/1.0\r\n\r\n")
            assert old.answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost:8321/health", "evil.example", 200),
        ("HTTP://127.0.0.1/health?x", "localhost", 400),  # no parameter of this name
        ("http://evil.example/health", "localhost", 403),
        ("http://user@localhost/health", "localhost", 400),
        ("http://localhost", "localhost", 200),
        ("http://localhost/health#part", "localhost", 200),
        ("https://localhost/v1/models", "localhost", 200),
        ("http://localhost/health", None, 400),
    ],
)
async def test_a_target_in_absolute_form_names_the_host(
    discovery: Discovery, script: Scripts, target: str, host: str | None, status: int
) -> None:
    script("a")
    async with served_script(discovery) as client, RawClients(client) as raw:
        assert (await raw.ask(request("GET", target, host=host))).statuses == [status]


async def test_hosts_of_the_setting_are_allowed_too(discovery: Discovery, script: Scripts) -> None:
    script("a")
    allowed = ["stack.example.com", "*.internal", "10.0.0.7:80"]
    async with served_script(discovery, server={"allowed_hosts": allowed}) as client, RawClients(client) as raw:
        for host, status in (
            ("stack.example.com:443", 200),
            ("Stack.Example.Com.", 200),
            ("a.b.internal", 200),
            ("10.0.0.7:80", 200),
            ("localhost", 200),
            ("10.0.0.7", 403),
            ("internal", 403),
            ("evil.example", 403),
        ):
            assert (await raw.ask(request("GET", "/health", host=host))).statuses == [status], host
    async with served_script(discovery, server={"allowed_hosts": ["*"]}) as client, RawClients(client) as raw:
        assert (await raw.ask(request("GET", "/health", host="evil.example"))).statuses == [200]


def test_elsewhere_hosts_are_checked_where_the_setting_says_so(scripted: Callable[..., Stack]) -> None:
    def answers(loopback: bool, **server: Any) -> list[int]:
        app = create_app(scripted("a", server=server), loopback=loopback)
        client = TestClient(app, base_url="http://stack.example.com")
        return [client.get("/docs", headers={"Host": host}).status_code for host in ("stack.example.com", "a.example")]

    assert answers(False) == [200, 200]
    assert answers(False, allowed_hosts=["stack.example.com"]) == [200, 403]
    assert answers(True, host="stack.example.com") == [200, 403]
    assert answers(True) == [403, 403]


# ---- origins ---------------------------------------------------------------------------------------------------------


async def test_pages_of_other_sites_send_nothing_that_could_write(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery) as client:
        for origin in ("null", "http://evil.example", "https://localhost", "chrome-extension://a", "", "x"):
            for method in ("POST", "PUT", "PATCH", "DELETE", "PROPFIND"):
                reply = await client.request(method, "/health", headers={"Origin": origin})
                assert (reply.status_code, reply.json()["error"]["code"]) == (403, "permission_denied"), (
                    origin,
                    method,
                )
                assert "server.allowed_origins" in reply.text
            for method in ("GET", "HEAD"):
                reply = await client.request(method, "/health", headers={"Origin": origin})
                assert reply.status_code == 200
                assert not [name for name in reply.headers if name.startswith("access-control-")]
        own = str(client.base_url).rstrip("/").upper()
        reply = await client.post("/inference/chat_completion", json=CHAT, headers={"Origin": own})
        assert reply.status_code == 200


def cors(reply: Any) -> tuple[str | None, str | None]:
    return reply.headers.get("access-control-allow-origin"), reply.headers.get("vary")


async def test_pages_of_allowed_origins_read_every_reply(discovery: Discovery, script: Scripts) -> None:
    a = script("a", fail_after_pieces=2)
    page = {"Origin": PAGE}
    async with served_script(discovery, server={"allowed_origins": [PAGE, "null"]}) as client:
        replies = [
            await client.get("/health", headers=page),
            await client.get("/nothing", headers=page),
            await client.delete("/health", headers=page),
            await client.post("/v1/chat/completions", content=b"{", headers=page),
            await client.post("/inference/chat_completion", json=CHAT, headers=page),
            await client.post("/inference/chat_completion", json={**CHAT, "stream": True}, headers=page),
            await client.post("/v1/chat/completions", json=CHAT, headers={**page, "Host": "evil.example"}),
        ]
        assert [reply.status_code for reply in replies] == [200, 404, 405, 400, 200, 200, 403]
        assert [cors(reply) for reply in replies] == [(PAGE, "Origin")] * len(replies)
        for reply in replies:
            exposed = reply.headers["access-control-expose-headers"].lower().split(", ")
            assert {"x-request-id", "retry-after"} <= set(exposed)
        assert a.closed_streams == 1
        reply = await client.post("/inference/chat_completion", json=CHAT, headers={"Origin": "null"})
        assert (reply.status_code, cors(reply)) == (200, ("null", "Origin"))
        reply = await client.post("/inference/chat_completion", json=CHAT, headers={"Origin": "http://app.example.com"})
        assert (reply.status_code, cors(reply)) == (403, (None, "Origin"))
        assert cors(await client.get("/health")) == (None, "Origin")


async def test_a_browser_asks_first(discovery: Discovery, script: Scripts) -> None:
    a = script("a")
    asks = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-llamastack-providerdata,x-stainless-os",
    }
    async with served_script(discovery, server={"allowed_origins": [PAGE]}) as client:
        for path in ("/inference/chat_completion", "/v1/chat/completions", "/nothing", "/health"):
            reply = await client.options(path, headers=asks)
            assert (reply.status_code, reply.content) == (204, b"")
            assert reply.headers["access-control-allow-origin"] == PAGE
            assert "POST" in reply.headers["access-control-allow-methods"]
            assert "DELETE" in reply.headers["access-control-allow-methods"]
            assert reply.headers["access-control-allow-headers"] == asks["Access-Control-Request-Headers"]
            vary = ", ".join(reply.headers.get_list("vary")).lower()
            assert {"origin", "access-control-request-headers"} <= set(re.split(", ?", vary))
            assert "access-control-allow-private-network" not in reply.headers
            assert "access-control-allow-credentials" not in reply.headers
        reply = await client.options("/health", headers={**asks, "Access-Control-Request-Private-Network": "true"})
        assert reply.headers["access-control-allow-private-network"] == "true"
        reply = await client.options("/health", headers={**asks, "Access-Control-Request-Headers": ""})
        assert "x-llamastack-providerdata" in reply.headers["access-control-allow-headers"].lower()
        reply = await client.options("/health", headers={**asks, "Origin": "https://evil.example"})
        assert (reply.status_code, cors(reply)) == (403, (None, "Origin"))
        reply = await client.options("/health", headers={"Origin": PAGE})
        assert (reply.status_code, cors(reply)) == (405, (PAGE, "Origin"))
    async with served_script(discovery) as client:
        reply = await client.options("/health", headers=asks)
        assert (reply.status_code, cors(reply)) == (405, (None, None))
    assert not [call for call in a.calls if call[0] == "chat_completion"]


async def test_every_origin(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery, server={"allowed_origins": ["*"]}) as client:
        for origin in (PAGE, "null", "chrome-extension://abc"):
            reply = await client.post("/inference/chat_completion", json=CHAT, headers={"Origin": origin})
            assert (reply.status_code, cors(reply)) == (200, ("*", None))
            asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            assert cors(await client.options("/v1/models", headers=asks))[0] == "*"
        assert cors(await client.get("/health")) == (None, None)


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("http://localhost:*", "http://localhost:5173"),
        ("chrome-extension://*", "chrome-extension://abcdefghijklmnop"),
        ("https://*.example.com", "https://app.example.com"),
    ],
)
async def test_patterns_are_answered_with_the_origin_itself(
    discovery: Discovery, script: Scripts, allowed: str, origin: str
) -> None:
    script("a")
    async with served_script(discovery, server={"allowed_origins": [allowed]}) as client:
        reply = await client.post("/inference/chat_completion", json=CHAT, headers={"Origin": origin})
        assert (reply.status_code, cors(reply)) == (200, (origin, "Origin"))


async def test_what_a_page_asks_for_cannot_be_used_to_write_headers(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery, server={"allowed_origins": ["*"]}) as client, RawClients(client) as raw:
        asked = await raw.ask(
            request(
                "OPTIONS",
                "/health",
                b"",
                f"Origin: {PAGE}",
                "Access-Control-Request-Method: POST",
                "Access-Control-Request-Headers: a, (c)",
            )
        )
        assert asked.statuses == [204]
        assert "(c)" not in asked.head
