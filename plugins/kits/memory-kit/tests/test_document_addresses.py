"""Documents are fetched from public addresses alone, and from the address that was judged."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llamastack.provider.errors import InvalidRequestError
from llamastack_adapters.http_client import http_client
from llamastack_memory_kit.documents import document_text, fetching
from llamastack_memory_kit.documents.addresses import is_public

pytestmark = pytest.mark.anyio
PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (PUBLIC, True),
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::93.184.216.34", True),
        ("2002:5db8:d822::1", True),
        *((address, False) for address in ("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1")),
        *((address, False) for address in ("169.254.169.254", "0.0.0.0", "0.1.2.3", "100.64.0.1", "198.18.0.1")),
        *((address, False) for address in ("192.0.0.8", "192.0.2.1", "192.88.99.1", "224.0.0.1", "239.255.255.250")),
        *((address, False) for address in ("240.0.0.1", "255.255.255.255", "203.0.113.7")),
        *((address, False) for address in ("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1")),
        *((address, False) for address in ("ff02::1", "ff0e::1", "2001:db8::1", "3fff::1", "5f00::1", "100::1")),
        # An IPv4 address inside: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP.
        *((address, False) for address in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::10.0.0.1")),
        *((address, False) for address in ("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254")),
        *((address, False) for address in ("64:ff9b:1::127.0.0.1", "64:ff9b:1:7f00:0:1::", "64:ff9b:1::1")),
        *((address, False) for address in ("2002:7f00:1::", "2002:0a00:0001::1", "2002:a9fe:a9fe::1")),
        *((address, False) for address in ("2001:0:7f00:1::1", "2001:0:5db8:d822::80ff:fffe", "2001::1")),
        *((address, False) for address in ("2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1")),
        ("::93.184.216.34", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


class Site(BaseHTTPRequestHandler):
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.headers["Host"], self.path))
        moved = {"/away": "http://other.test/inside", "/near": "page", "/file": "file:///etc/passwd"}.get(self.path)
        body = b"a page"
        self.send_response(302 if moved else 200)
        self.send_header("Content-Type", "text/plain")
        if moved:
            self.send_header("Location", moved)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Running:
    """A site on a loopback address; `asked` has what it was asked: (Host, path)."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Site,), {"asked": self.asked}))
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def site() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


def resolve(monkeypatch: pytest.MonkeyPatch, **answers: list[str]) -> list[str]:
    """Names get these addresses, one at each look-up, the last ever after. Gives the names that are looked up."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        found = answers.get(str(name).removesuffix(".test"))
        if found is None:
            return real(host, port, *rest, **options)
        looked_up.append(name)
        address = found.pop(0) if len(found) > 1 else found[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return looked_up


async def read(url: str, client: httpx.AsyncClient | None = None) -> str:
    async with client or httpx.AsyncClient(timeout=1) as own:
        return await document_text(url, own, fetch_timeout_s=3)


@pytest.mark.parametrize("make", [httpx.AsyncClient, http_client])
async def test_a_name_that_changes_its_address_is_not_followed(
    site: Running, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    resolve(monkeypatch, rebinds=["192.0.0.1", "127.0.0.1"])
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "192.0.0.1")
    with pytest.raises(InvalidRequestError, match="cannot be fetched|did not answer"):
        await read(f"http://rebinds.test:{site.port}/page", make(timeout=1))
    assert site.asked == []


@pytest.mark.parametrize("make", [httpx.AsyncClient, http_client])
async def test_what_was_judged_is_connected_to_by_its_name(
    site: Running, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    looked_up = resolve(monkeypatch, good=["127.0.0.1", "192.0.0.1"])
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    assert await read(f"http://good.test:{site.port}/page", make(timeout=1)) == "a page"
    assert site.asked == [(f"good.test:{site.port}", "/page")]
    assert looked_up == ["good.test"]


async def test_the_next_address_is_tried(site: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(fetching, "is_public", lambda _: True)
    assert await read(f"http://two.test:{site.port}/page") == "a page"


@pytest.mark.parametrize(
    ("path", "says"),
    [("/away", "leads to a private address"), ("/file", r"leads to a URL that is not http\(s\)")],
)
async def test_redirects_are_judged(site: Running, monkeypatch: pytest.MonkeyPatch, path: str, says: str) -> None:
    resolve(monkeypatch, good=["127.0.0.1"], other=["127.0.0.3"])
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    with pytest.raises(InvalidRequestError, match=says):
        await read(f"http://good.test:{site.port}{path}")
    assert [asked for asked in site.asked if asked[1] == "/inside"] == []


async def test_a_redirect_without_a_host_stays_with_the_name(site: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, good=["127.0.0.1"])
    monkeypatch.setattr(fetching, "is_public", lambda _: True)
    assert await read(f"http://good.test:{site.port}/near") == "a page"
    assert site.asked == [(f"good.test:{site.port}", "/near"), (f"good.test:{site.port}", "/page")]


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "localhost.", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "127.0.0.1."),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fec0::1]"),
        *("user:secret@127.0.0.1", "example.org@127.0.0.1", "169.254.169.254", "[fe80::1%25lo]"),
    ],
)
async def test_no_spelling_of_a_host_leads_inside(site: Running, host: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await read(f"http://{host}:{site.port}/page")
    assert site.asked == []
    assert "secret" not in caught.value.message


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(of a server that is called `name`, of a client that trusts it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "both.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cafile=str(pem))
    return server, client


@pytest.mark.parametrize("make", [httpx.AsyncClient, http_client])
async def test_tls_is_checked_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    of_server, of_client = certificate(tmp_path, "good.test")
    site = Running(of_server)
    try:
        resolve(monkeypatch, good=["127.0.0.1"], bad=["127.0.0.1"])
        monkeypatch.setattr(fetching, "is_public", lambda _: True)
        assert await read(f"https://good.test:{site.port}/page", make(timeout=2, verify=of_client)) == "a page"
        with pytest.raises(InvalidRequestError, match="TLS failed"):
            await read(f"https://bad.test:{site.port}/page", make(timeout=2, verify=of_client))
        assert site.asked == [(f"good.test:{site.port}", "/page")]
    finally:
        site.close()
