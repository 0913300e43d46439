"""Whose address a request came from: the peer's, unless the peer is a proxy the operator trusts.

Addresses are given in RFC 5952 form, IPv4-mapped ones as IPv4, without a zone; what is no address is 0.0.0.0.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

NO_ADDRESS: Final = "0.0.0.0"  # noqa: S104 (it says that nobody knows, nothing listens there)

Address = IPv4Address | IPv6Address
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
    networks = [ip_network(entry.strip()) for entry in trusted_proxies.split(",") if entry.strip()]

    def trusted(peer: str | None) -> bool:
        address = _address(peer or "")
        return address is not None and any(address in network for network in networks)

    return trusted


def _by_hops(hops: int) -> ClientAddress:
    """The n-th entry from the right was written by the outermost of n trusted proxies."""

    def address(peer: str | None, forwarded: Sequence[str]) -> str:
        chain = [*_entries(forwarded), peer or ""]
        return _text(_address(chain[max(len(chain) - 1 - hops, 0)]))

    return address


def _by_networks(networks: list[IPv4Network | IPv6Network]) -> ClientAddress:
    """From the right, the first entry that is not itself a trusted proxy."""

    def trusted(address: Address | None) -> bool:
        return address is not None and any(address in network for network in networks)

    def address(peer: str | None, forwarded: Sequence[str]) -> str:
        found = _address(peer or "")
        for entry in reversed(_entries(forwarded)):
            if not trusted(found):
                break
            found = _address(entry)
        return _text(found)

    return address


def _entries(forwarded: Sequence[str]) -> list[str]:
    return [entry.strip() for value in forwarded for entry in value.split(",") if entry.strip()]


def _address(text: str) -> Address | None:
    """Read an address as proxies write it: `1.2.3.4`, `1.2.3.4:80`, `[::1]:80`, `fe80::1%eth0`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _text(address: Address | None) -> str:
    return NO_ADDRESS if address is None else str(address)
