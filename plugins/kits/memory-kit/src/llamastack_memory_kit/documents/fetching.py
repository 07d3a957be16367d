"""Fetches a document from a client's http(s) URL, without reaching private addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx

from llamastack.provider.connection_errors import reason_at
from llamastack.provider.descriptor_shortage import SHORTAGE, is_shortage
from llamastack.provider.errors import BackendError, InvalidRequestError, ServerBusyError
from llamastack_adapters.decompression import unpacked
from llamastack_memory_kit.documents.addresses import is_public

_USERINFO = re.compile(r"//[^/]*@")
_MOST_REDIRECTS = 5
_MOST_ADDRESSES = 4
_SCHEMES = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Fetching:
    """How documents are fetched.

    client: sends the requests. max_bytes: the most bytes of a body. allow_private: fetch from private addresses too.
    timeout_s: seconds for the whole fetch, redirects included; None for no limit but the client's.
    """

    client: httpx.AsyncClient
    max_bytes: int
    allow_private: bool
    timeout_s: float | None


async def fetched(url: str, how: Fetching, param: str) -> tuple[bytes, str | None]:
    """(body, Content-Type) of the page at `url`.

    Raises InvalidRequestError, naming `param`, if it cannot be fetched; ServerBusyError if this server has no file
    descriptors left.
    """
    shown = _shown(url)
    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidRequestError(f"{shown} cannot be fetched: {error}", param=param) from error
    try:
        with anyio.fail_after(how.timeout_s):
            return await _follow(target, shown, how, param)
    except TimeoutError:
        raise InvalidRequestError(f"{param}: the URL did not answer within {how.timeout_s:g} s", param=param) from None


def _shown(url: str) -> str:
    """The URL without its possibly secret parts: user, password, query."""
    return _USERINFO.sub("//", url.partition("?")[0].partition("#")[0], count=1)[:500]


async def _follow(target: httpx.URL, shown: str, how: Fetching, param: str) -> tuple[bytes, str | None]:
    for _ in range(_MOST_REDIRECTS + 1):
        if target.scheme not in _SCHEMES or not target.host:
            raise InvalidRequestError(f"{shown} leads to a URL that is not http(s)", param=param)
        try:
            async with _answer(target, shown, how, param) as reply:
                if not reply.has_redirect_location:
                    return await _body(reply, shown, how.max_bytes, param), reply.headers.get("content-type")
                # The URL of the reply is not used: the request went to an address, not to the name.
                target = target.join(reply.headers["location"])
        except httpx.HTTPError as error:
            where = f"{target.scheme}://{target.netloc.decode()}"
            if is_shortage(error):
                raise ServerBusyError(reason_at(error, where)) from error
            raise InvalidRequestError(f"{shown} cannot be fetched: {reason_at(error, where)}", param=param) from error
        except (BackendError, httpx.InvalidURL, ValueError) as error:
            reason = error.message if isinstance(error, BackendError) else str(error)
            raise InvalidRequestError(f"{shown} cannot be fetched: {reason}", param=param) from error
    raise InvalidRequestError(f"{shown} leads through more than {_MOST_REDIRECTS} redirects", param=param)


@asynccontextmanager
async def _answer(target: httpx.URL, shown: str, how: Fetching, param: str) -> AsyncIterator[httpx.Response]:
    if how.allow_private:
        async with how.client.stream("GET", target, follow_redirects=False) as reply:
            yield reply
        return
    addresses = await _public_addresses(target, shown, param)
    if _goes_through_a_proxy(target):
        # The proxy resolves the name, and it cannot reach this server's private network.
        async with how.client.stream("GET", target, follow_redirects=False) as reply:
            yield reply
        return
    reply = await _connected(target, addresses, how.client)
    try:
        yield reply
    finally:
        with anyio.CancelScope(shield=True):
            await reply.aclose()


async def _connected(target: httpx.URL, addresses: list[str], client: httpx.AsyncClient) -> httpx.Response:
    """The answer from the first address that can be reached. The name is resolved only once and then checked: a second
    look-up by the HTTP client could return another address.
    """
    host = target.raw_host.decode("ascii")
    extensions: dict[str, Any] = {}
    if target.scheme == "https" and not _is_address(host):
        extensions["sni_hostname"] = host.rstrip(".")  # the certificate must match the name
    # No connection is kept: the pool identifies connections by address, not by the name that TLS verified.
    headers = {"Host": target.netloc.decode("ascii"), "Connection": "close"}
    for address in addresses[:-1]:
        try:
            return await _get(client, target.copy_with(host=address), headers, extensions)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            continue
    return await _get(client, target.copy_with(host=addresses[-1]), headers, extensions)


async def _get(
    client: httpx.AsyncClient, url: httpx.URL, headers: dict[str, str], extensions: dict[str, Any]
) -> httpx.Response:
    request = client.build_request("GET", url, headers=headers)
    request.extensions.update(extensions)
    return await client.send(request, stream=True, follow_redirects=False)


async def _public_addresses(url: httpx.URL, shown: str, param: str) -> list[str]:
    """The addresses of the host. Raises InvalidRequestError if any of them is not public."""
    try:
        found = await anyio.getaddrinfo(url.raw_host.decode("ascii"), url.port or _SCHEMES[url.scheme])
    except (OSError, UnicodeError) as error:
        if is_shortage(error):
            raise ServerBusyError(f"{SHORTAGE}, so {shown} cannot be fetched") from error
        raise InvalidRequestError(f"{shown} cannot be fetched: the host is not known", param=param) from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if not addresses or not all(is_public(address) for address in addresses):
        raise InvalidRequestError(f"{shown} is not fetched: it leads to a private address", param=param)
    return addresses[:_MOST_ADDRESSES]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _goes_through_a_proxy(url: httpx.URL) -> bool:
    proxies = getproxies()
    return bool(proxies.get(url.scheme) or proxies.get("all")) and not proxy_bypass(url.host)


async def _body(reply: httpx.Response, shown: str, most: int, param: str) -> bytes:
    if not reply.is_success:
        raise InvalidRequestError(f"{shown} answered {reply.status_code}: nothing was stored", param=param)
    raw = bytearray()
    async for block in unpacked(reply.aiter_raw(), reply.headers.get("content-encoding", ""), shown):
        raw += block
        if len(raw) > most:
            raise InvalidRequestError(f"{shown} is larger than {most} bytes", param=param)
    return bytes(raw)
