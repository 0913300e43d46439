"""A redirect as it is sent, in one piece.

aiohttp gathers an answer's headers in a dict, completes them, looks them through and joins them: 20 µs of a click
(measured). Nobody adds anything to most redirects, so their bytes are known from the start.
"""

import re
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

OF_LINKS: Final = {"Cache-Control": "no-store", "Referrer-Policy": "strict-origin-when-cross-origin"}
"""What every answer of a link says."""

_NO_VALUE: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
"""What no header's value holds: a control character would end it, half a surrogate pair is no character."""


def redirect(status: int, target: str, own_lines: str) -> bytes | None:
    """Give the whole answer that sends an HTTP/1.1 visitor to `target`; the connection stays open.

    `own_lines` are the headers of every answer, as they are sent. None: the target can be no header's value.
    """
    if _NO_VALUE.search(target):
        return None
    lines = _before_the_target(status, own_lines)
    return f"{lines}Date: {_date(int(time.time()))}\r\nLocation: {target}\r\n\r\n".encode()


@lru_cache(maxsize=8)
def _before_the_target(status: int, own_lines: str) -> str:
    of_links = "".join(f"{name}: {value}\r\n" for name, value in OF_LINKS.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{own_lines}{of_links}Content-Length: 0\r\n"


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
