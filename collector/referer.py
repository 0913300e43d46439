"""The referring host: of the page a visitor came from, the name and nothing else."""

import re
from typing import Final, Literal

from yarl import URL

_HOST: Final = re.compile(r"[a-z0-9._:-]{1,253}")
_SCHEMES: Final = frozenset({"http", "https", "android-app", "ios-app"})

RefererPrivacy = Literal["host", "full", "none"]


def referring_host(referer: str) -> str | None:
    """Give the host of a Referer: lower case, A-labels, without user info, port, path, query or trailing dot.

    None for what is no http, https, android-app or ios-app URL.
    """
    try:
        url = URL(referer.strip())
        host = url.raw_host
    except ValueError:
        return None
    host = (host or "").rstrip(".").lower()
    return host if url.scheme in _SCHEMES and _HOST.fullmatch(host) else None


def kept_referer(referer: str | None, privacy: RefererPrivacy) -> str | None:
    """Give what may be kept of a Referer."""
    if not referer or privacy == "none":
        return None
    return referer if privacy == "full" else referring_host(referer)
