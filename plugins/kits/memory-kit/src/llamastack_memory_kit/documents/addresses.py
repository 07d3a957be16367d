"""The addresses that a server may connect to for a client: only public ones.

Sources: the IANA registries of special-purpose addresses, RFC 6890; forms of IPv6 that carry an IPv4 address: RFC 4291
(mapped, compatible), RFC 3056 (6to4), RFC 6052 (NAT64), RFC 5214 (ISATAP).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_MAPPED = IPv6Network("::ffff:0:0/96")
_6TO4 = IPv6Network("2002::/16")
_ISATAP = (0x00005EFE, 0x02005EFE)
# Networks that not every Python version's `ipaddress` knows.
_NOT_PUBLIC_4 = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("198.18.0.0/15"),
    IPv4Network("224.0.0.0/3"),
)
_NOT_PUBLIC_6 = (
    IPv6Network("2001::/23"),  # including Teredo, which a client can point anywhere
    IPv6Network("2001:db8::/32"),
    IPv6Network("3fff::/20"),
)


def is_public(address: str) -> bool:
    """Whether an IP address is public. An IPv4 address inside it must be public too."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv4Address):
        return found.is_global and not any(found in network for network in _NOT_PUBLIC_4)
    if not all(is_public(str(inner)) for inner in _carried(found)):
        return False
    if found in _MAPPED or found in _NAT64:
        return True
    # `is_global` is not used: its list of networks depends on the Python version.
    return found in _GLOBAL_UNICAST and not any(found in network for network in _NOT_PUBLIC_6)


def _carried(address: IPv6Address) -> Iterator[IPv4Address]:
    number = int(address)
    low = IPv4Address(number & 0xFFFFFFFF)
    if address in _MAPPED or address in _NAT64 or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        yield low
    if address in _6TO4:
        yield IPv4Address((number >> 80) & 0xFFFFFFFF)
