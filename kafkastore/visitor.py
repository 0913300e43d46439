"""Who a visitor is to those who count, and how much of an address they see."""

import hmac
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final

_IPV6_NETWORK_BYTES: Final = 6
_ZEROS: Final = bytes(10)
_NO_DIGEST: Final = sha256(usedforsecurity=False)


def address_of(text: str) -> str | None:
    """Give an address in RFC 5952 form, an IPv4-mapped one as IPv4; None for what is no address."""
    try:
        if ":" not in text:
            inet_pton(AF_INET, text)  # as strict as `ipaddress`, and ten times faster
            return text
        packed = inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        return _address_of(text)  # a zone, or no address
    # The C library has a form of its own for addresses that are all zeros up to an IPv4 one.
    return _address_of(text) if packed.startswith(_ZEROS) else inet_ntop(AF_INET6, packed)


def _address_of(text: str) -> str | None:
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
    if key is not None:
        return hmac.new(key, who, sha256).hexdigest()
    digest = _NO_DIGEST.copy()  # a new one asks OpenSSL for its SHA-256 first: half as long again
    digest.update(who)
    return digest.hexdigest()


def masked(address: str) -> str:
    """Give the network of an address in RFC 5952 form: /24 for IPv4, /48 for IPv6."""
    if ":" not in address:
        return f"{address.rpartition('.')[0]}.0"
    return inet_ntop(AF_INET6, inet_pton(AF_INET6, address)[:_IPV6_NETWORK_BYTES] + _ZEROS)


@lru_cache(maxsize=8)  # events come in the order of time: today, and yesterday about midnight
def _day(days: int) -> bytes:
    return datetime.fromtimestamp(days * 86_400, UTC).strftime("%Y-%m-%d").encode()
