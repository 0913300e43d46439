"""Who a visitor is to those who count, and how much of an address they see."""

import hmac
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

_IPV4_PREFIX: Final = 24
_IPV6_PREFIX: Final = 48


def address_of(text: str) -> str | None:
    """Give an address in RFC 5952 form, an IPv4-mapped one as IPv4; None for what is no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return address.compressed.partition("%")[0]
    return str(address)


def visitor_id(address: str, user_agent: bytes, seconds: int, key: bytes | None = None) -> str:
    """Give the SHA-256 hex of `IP|User-Agent|YYYY-MM-DD`, or its HMAC: the same person on the same UTC day."""
    who = b"%b|%b|%b" % (address.encode(), user_agent, _day(seconds // 86_400))
    return (sha256(who) if key is None else hmac.new(key, who, sha256)).hexdigest()


def masked(address: str) -> str:
    """Give the address's network: /24 for IPv4, /48 for IPv6."""
    prefix = _IPV6_PREFIX if ":" in address else _IPV4_PREFIX
    return str(ip_network(f"{address}/{prefix}", strict=False).network_address)


@lru_cache(maxsize=8)  # events come in the order of time: today, and yesterday about midnight
def _day(days: int) -> bytes:
    return datetime.fromtimestamp(days * 86_400, UTC).strftime("%Y-%m-%d").encode()
