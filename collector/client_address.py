"""Whose address a request came from: the peer's, unless the peer is a proxy the operator trusts.

Addresses are given in RFC 5952 form, IPv4-mapped ones as IPv4, without a zone; what is no address is 0.0.0.0.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import AF_INET, inet_ntop, inet_pton
from typing import Final

NO_ADDRESS: Final = "0.0.0.0"  # noqa: S104 (it says that nobody knows, nothing listens there)

_IPV4_BYTES: Final = 4

_MOST_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 128
"""Characters of a forwarding header: with Python's objects at most 2 MB."""

Network = IPv4Network | IPv6Network
ClientAddress = Callable[[str | None, Sequence[str]], str]


def client_address(trusted_proxies: str) -> ClientAddress:
    """Give the function from (peer, values of the forwarding header) to the client's address.

    `trusted_proxies` is a comma list of networks, or the number of proxies in front (a hop count), or empty.
    Raises ValueError for anything else.
    """
    if not trusted_proxies:
        return lambda peer, _forwarded: _text(_address(peer or ""))
    if trusted_proxies.isdecimal():
        return _by_hops(int(trusted_proxies))
    return _by_networks([ip_network(entry.strip()) for entry in trusted_proxies.split(",") if entry.strip()])


def peers_trusted(trusted_proxies: str) -> Callable[[str | None], bool]:
    """Give the function that tells whether a peer is a trusted proxy; with a hop count every peer is one."""
    if not trusted_proxies or trusted_proxies.isdecimal():
        return lambda _peer: trusted_proxies not in ("", "0")
    trusted = _within([ip_network(entry.strip()) for entry in trusted_proxies.split(",") if entry.strip()])
    return lambda peer: trusted(_address(peer or ""))


def _by_hops(hops: int) -> ClientAddress:
    """The n-th entry from the right was written by the outermost of n trusted proxies."""

    def address(peer: str, forwarded: str) -> str:
        chain = [*_entries(forwarded), peer]
        return _text(_address(chain[max(len(chain) - 1 - hops, 0)]))

    return _remembered(address)


def _by_networks(networks: Sequence[Network]) -> ClientAddress:
    """From the right, the first entry that is not itself a trusted proxy."""
    trusted = _within(networks)

    def address(peer: str, forwarded: str) -> str:
        found = _address(peer)
        if trusted(found):
            for entry in reversed(_entries(forwarded)):
                found = _address(entry)
                if not trusted(found):
                    break
        return _text(found)

    return _remembered(address)


def _remembered(address: Callable[[str, str], str]) -> ClientAddress:
    """Give the function that keeps what it found: a visitor seldom comes once, and whole offices have one address."""
    known = lru_cache(maxsize=_MOST_REMEMBERED)(address)

    def remembered(peer: str | None, forwarded: Sequence[str]) -> str:
        entries = ",".join(forwarded)
        return (known if len(entries) <= _LONGEST_REMEMBERED else address)(peer or "", entries)

    return remembered


def _within(networks: Sequence[Network]) -> Callable[[bytes | None], bool]:
    """Give the function that tells whether an address is in one of the networks."""
    ranges = [
        (network.max_prefixlen // 8, int(network.netmask), int(network.network_address))
        for network in networks
    ]

    def within(address: bytes | None) -> bool:
        if address is not None:
            number = int.from_bytes(address)
            for length, mask, first in ranges:
                if len(address) == length and number & mask == first:
                    return True
        return False

    return within


def _entries(forwarded: str) -> list[str]:
    return [stripped for entry in forwarded.split(",") if (stripped := entry.strip())]


def _address(text: str) -> bytes | None:
    """Read an address as proxies write it: `1.2.3.4`, `1.2.3.4:80`, `[::1]:80`, `fe80::1%eth0`.

    As 4 or 16 bytes: objects of `ipaddress` took 9 µs of every click, these take 2 (measured).
    """
    try:
        return inet_pton(AF_INET, text)
    except (OSError, ValueError):  # no bare IPv4 address
        pass
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).packed


def _text(address: bytes | None) -> str:
    if address is None:
        return NO_ADDRESS
    # inet_ntop writes IPv6 addresses that end in an IPv4 one as RFC 5952 does not.
    return inet_ntop(AF_INET, address) if len(address) == _IPV4_BYTES else str(IPv6Address(address))
