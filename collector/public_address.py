"""Which IP addresses everybody can reach, and which only we can. Pure."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_GLOBAL_UNICAST: Final = ip_network("2000::/3")
"""All IPv6 addresses that are given out so far (IANA, "Internet Protocol Version 6 Address Space")."""

_NAT64: Final = ip_network("64:ff9b::/96")
_NOT_PUBLIC: Final = (
    ip_network("168.63.129.16/32"),  # Azure's own service for its machines
    ip_network("192.0.0.0/24"),  # protocol assignments: Oracle's metadata
    ip_network("192.88.99.0/24"),  # 6to4 relays, given up
    ip_network("3fff::/20"),  # documentation; Python 3.11 does not know it yet
)


def is_public(address: str) -> bool:
    """Tell whether an IP address, and the IPv4 address it may stand for, is one that everybody can reach."""
    try:
        ip = _meant(ip_address(address))
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


def _meant(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Give the IPv4 address within an IPv6 one: mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056)."""
    if not isinstance(ip, IPv6Address):
        return ip
    nat64 = IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
    return ip.ipv4_mapped or nat64 or ip.sixtofour or ip
