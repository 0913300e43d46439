"""What a request's method and headers say that the kafkastore must know to tell people from machines."""

from collections.abc import Mapping
from typing import Final

_PREFETCH_HEADERS: Final = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")


def signals_of(method: str, headers: Mapping[str, str]) -> str:
    """Give the comma list of `head prefetch anonymous_ip headless gpc dnt` that hold; "" for most requests.

    `Sec-Purpose: prefetch;anonymous-client-ip` is how Chrome's private prefetch proxy says that the address
    is not the visitor's.
    """
    purpose = ",".join(value for name in _PREFETCH_HEADERS if (value := headers.get(name))).lower()
    found = {
        "head": method == "HEAD",
        "prefetch": "prefetch" in purpose or "preview" in purpose,
        "anonymous_ip": "anonymous-client-ip" in purpose,
        "headless": "headless" in headers.get("Sec-CH-UA", "").lower(),
        "gpc": headers.get("Sec-GPC") == "1",
        "dnt": headers.get("DNT") == "1",
    }
    return ",".join(name for name, holds in found.items() if holds)
