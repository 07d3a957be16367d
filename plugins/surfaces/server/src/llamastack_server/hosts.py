"""Hosts and origins: the patterns of a run config, the values of a request, and whether they match.

Formats: https://www.rfc-editor.org/rfc/rfc9110#section-7.2 (Host), https://www.rfc-editor.org/rfc/rfc6454#section-7
(Origin).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

ANY = "*"
NULL_ORIGIN = "null"
_AUTHORITY = re.compile(r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)(?::(?P<port>[0-9]{0,5}))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_LONGEST_NAME = 255  # characters, more than a DNS name may have
_HIGHEST_PORT = 65535
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Host:
    """name: in lower case, without a last dot; an address in its shortest form, without brackets. port: as given."""

    name: str
    port: int | None = None


@dataclass(frozen=True)
class Origin:
    """scheme: in lower case. host: without a port if it is the scheme's default."""

    scheme: str
    host: Host


def read_host(text: str) -> Host | None:
    """The value of a `Host` header; None if it is not a host."""
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None or len(text) > _LONGEST_NAME:
        return None
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > _HIGHEST_PORT:
        return None
    name = found["name"]
    try:
        name = str(ip_address(name.strip("[]")))
    except ValueError:
        if name.startswith("["):
            return None
        name = name.removesuffix(".")
    return Host(name, port)


def read_origin(text: str) -> Origin | None:
    """The value of an `Origin` header; None for `null` and if it is not an origin."""
    scheme, separator, rest = text.lower().partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return None
    if not rest and scheme not in _DEFAULT_PORTS:
        return Origin(scheme, Host(""))  # such as file://
    host = read_host(rest)
    if host is None:
        return None
    return Origin(scheme, Host(host.name, None if host.port == _DEFAULT_PORTS.get(scheme) else host.port))


def is_loopback(name: str) -> bool:
    """Whether a host's name is this machine's own: `localhost`, a name below it, or a loopback address."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def is_own(origin: Origin, host: Host) -> bool:
    """Whether a page of `origin` comes from the server that the request calls `host`."""
    usual = _DEFAULT_PORTS.get(origin.scheme)
    return origin.host.name == host.name and (origin.host.port or usual) == (host.port or usual)


@dataclass(frozen=True)
class HostPattern:
    """name: exact, `*` for every name, or `*.` and the end of a name. port: None for every port."""

    name: str
    port: int | None = None

    def fits(self, host: Host) -> bool:
        if self.port is not None and self.port != host.port:
            return False
        return self.name in (ANY, host.name) or (self.name.startswith("*.") and host.name.endswith(self.name[1:]))


@dataclass(frozen=True)
class OriginPattern:
    """scheme: exact. host: see `HostPattern`; its port counts only if `any_port` is False."""

    scheme: str
    host: HostPattern
    any_port: bool = False

    def fits(self, origin: Origin) -> bool:
        if self.scheme != origin.scheme or (not self.any_port and self.host.port != origin.host.port):
            return False
        return self.host.fits(origin.host)


def host_pattern(text: str) -> HostPattern:
    """An entry of `allowed_hosts`. Raises ValueError that says what is allowed."""
    if text == ANY:
        return HostPattern(ANY)
    wild = "*." if text.startswith("*.") else ""
    # An IPv6 address may have no brackets, as in `host`.
    bare = text.count(":") > 1 and not text.startswith("[")
    host = read_host(f"[{text}]" if bare else text.removeprefix("*."))
    if host is None:
        raise ValueError(
            f"'{text}' is not a host; allowed: a name or an address, with or without a port, such as "
            "stack.example.com, *.example.com or 192.0.2.7:8321, or *"
        )
    return HostPattern(wild + host.name, host.port)


def origin_pattern(text: str) -> OriginPattern:
    """An entry of `allowed_origins` that is not `*` or `null`. Raises ValueError that says what is allowed."""
    any_port = text.endswith(":*")
    scheme, separator, rest = text.removesuffix(":*").partition("://")
    wild = "*" if rest == "*" or rest.startswith("*:") else ("*." if rest.startswith("*.") else "")
    plain = re.sub(r"^\*(?=$|:)", "any", rest) if wild == "*" else rest.removeprefix("*.")
    origin = read_origin(f"{scheme}{separator}{plain}")
    if origin is None:
        raise ValueError(
            f"'{text}' is not an origin; allowed: scheme://host or scheme://host:port without a path, such as "
            "https://app.example.com, https://*.example.com, http://localhost:* or chrome-extension://*, "
            "or null, or *"
        )
    name = ANY if wild == "*" else wild + origin.host.name
    return OriginPattern(origin.scheme, HostPattern(name, origin.host.port), any_port)
