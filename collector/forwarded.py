"""What the frontend is told about a visitor, and what visitors are told where the frontend names itself. Pure.

The frontend is asked under its own name, so that it works wherever it is (Heroku, a bucket, a container), and so
that no Host a stranger makes up chooses what it says. Under which name the visitor came, it is told beside.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from multidict import CIMultiDict

_LOCATIONS: Final = ("Location", "Content-Location")
_PORTS: Final = {"http": 80, "https": 443}

_LONGEST_HOST: Final = 512
"""Two of them, where a proxy added one to what it was told."""

_HOST: Final = re.compile(r"(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")


def asked_host(named: str) -> str:
    """Give the host that a visitor named, with its port, in lower case; "" for what can be no host."""
    return _known_host(named) if len(named) <= _LONGEST_HOST else ""


@lru_cache(maxsize=1024)
def _known_host(named: str) -> str:
    host = named.partition(",")[0].strip().lower()
    return host if _HOST.fullmatch(host) else ""


def forwarded_headers(address: str, host: str, scheme: str) -> dict[str, str]:
    """Give what the frontend is told: one address, the one that our events have. It need trust nobody but us."""
    node = f'"[{address}]"' if ":" in address else address
    if not host:
        return {
            "X-Forwarded-For": address,
            "X-Forwarded-Proto": scheme,
            "Forwarded": f"for={node};proto={scheme}",
        }
    return {
        "X-Forwarded-For": address,
        "X-Forwarded-Host": host,
        "X-Forwarded-Proto": scheme,
        "Forwarded": f'for={node};host="{host}";proto={scheme}',
    }


def lead_to_us(headers: CIMultiDict[str], origin: str) -> None:
    """Make an answer's headers lead to us where they lead to the frontend."""
    for name in _LOCATIONS:
        if name in headers:
            headers[name] = seen_location(headers[name], origin)


def seen_location(location: str, origin: str) -> str:
    """Give a URL of the frontend (`origin`: `http://127.0.0.1:8081`) as a path of ours, and others as they are."""
    try:
        parts, own = urlsplit(location), urlsplit(origin)
        same = [(each.scheme, each.hostname, each.port or _PORTS.get(each.scheme)) for each in (parts, own)]
    except ValueError:
        return location
    if same[0] != same[1]:
        return location
    path = parts.path or "/"
    if path.startswith(("//", "/\\")):
        path = f"/.{path}"  # alone it would be another host
    return f"{path}{parts.query and '?'}{parts.query}{parts.fragment and '#'}{parts.fragment}"
