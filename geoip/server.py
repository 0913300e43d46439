"""The server that has the archives: asked for the latest release and its checksum, and downloaded from in pieces.

As MaxMind documents it (https://dev.maxmind.com/geoip/updating-databases/, "Directly downloading databases"):

- Basic authentication with account id and licence key, and a redirect to a storage host, which must not see them
  (aiohttp leaves Authorization out when a redirect leads to another origin).
- A HEAD request tells the latest release's date in Last-Modified, and does not count as a download. A GET with
  If-Modified-Since would be redirected, and counted, before the storage sees the date.
- GeoLite accounts have 30 downloads a day (https://dev.maxmind.com/geoip/geolite2-free-geolocation-data/).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import hdrs
from yarl import URL

from geoip.source import Source, UpdateError, failure, refusal

OnProgress = Callable[[int, int | None], None]
"""Told how many bytes there are, of how many (None: the server does not say)."""

MOST_REDIRECTS: Final = 5
PIECE_BYTES: Final = 64 * 1024
CHECKSUM_BYTES: Final = 1024
"""Of the answer that holds it: 64 digits and a file's name."""

_CHECKSUM: Final = re.compile(rb"([0-9a-fA-F]{64})(\s|$)")
_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_ANSWERS: Final = (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an update may cost."""

    connect_seconds: float = 10.0
    silence_seconds: float = 30.0
    """Between two pieces of an answer."""
    whole_seconds: float = 1800.0
    """For all of it: 100 MB at 60 KB a second."""
    archive_bytes: int = 1024**3
    table_bytes: int = 1024**3
    """GeoLite2-City has 60 MB, GeoIP2-City 120; it is read into memory by whoever uses it."""
    attempts: int = 3
    """At a download that breaks off; each may count as one of the day's."""
    pause_seconds: float = 2.0
    """Between them."""


BOUNDS: Final = Bounds()


@dataclass(frozen=True, slots=True)
class Release:
    """What the server tells of an archive; each part is None where it does not."""

    published: datetime | None
    size: int | None
    validator: str | None
    """For If-Range: a strong ETag, else the date."""


class _StartOverError(aiohttp.ClientError):
    """The server does not go on where the file ends."""


@asynccontextmanager
async def open_server(source: Source, bounds: Bounds) -> AsyncIterator["Server"]:
    """Open a client of the source's server; a redirect is followed to the byte, as signed addresses need it."""
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=bounds.connect_seconds, sock_read=bounds.silence_seconds
    )
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        requote_redirect_url=False,
        timeout=timeout,
        headers={hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: "onward"},
    ) as http:
        yield Server(http, source, bounds)


@dataclass(frozen=True, slots=True)
class Server:
    """Where the source's archive is. Everything raises UpdateError when there is no answer to go on with."""

    http: aiohttp.ClientSession
    source: Source
    bounds: Bounds

    async def latest(self) -> Release:
        """Ask what the latest release is."""
        async with self._said(), self._asked(hdrs.METH_HEAD, self.source.archive) as answer:
            published = _date(answer.headers.get(hdrs.LAST_MODIFIED))
            validator = answer.headers.get(hdrs.ETAG)
            if validator is None or not validator.startswith('"'):
                validator = format_datetime(published, usegmt=True) if published else None
            return Release(published, answer.content_length, validator)

    async def checksum(self) -> str:
        """Fetch the archive's SHA-256, in lower-case hex."""
        text = bytearray()
        async with self._said(), self._asked(hdrs.METH_GET, self.source.checksum) as answer:
            async for piece in answer.content.iter_chunked(CHECKSUM_BYTES):
                text += piece
                if len(text) > CHECKSUM_BYTES:
                    break
        found = _CHECKSUM.match(text)
        if found is None:
            raise UpdateError(
                f"{self.source.archive.host} has no checksum where one belongs: check --url and MAXMIND_URL."
            )
        return found[1].decode().lower()

    async def download(self, release: Release, part: Path, on_progress: OnProgress) -> None:
        """Complete the file, which may hold a beginning from another time; raises OSError of the disk too."""
        broke: aiohttp.ClientError | TimeoutError | None = None
        for attempt in range(self.bounds.attempts):
            if attempt:
                await asyncio.sleep(self.bounds.pause_seconds)
            try:
                await self._go_on(release, part, on_progress)
            except (aiohttp.ClientError, TimeoutError) as error:
                broke = error
            else:
                return
        raise UpdateError(failure(broke, self.source, kept_bytes=_size(part)))

    async def _go_on(self, release: Release, part: Path, on_progress: OnProgress) -> None:
        """Fetch what the file lacks, once."""
        have = _size(part)
        if have and have == release.size:
            return
        headers = {}
        if have and release.validator:
            headers = {"Range": f"bytes={have}-", "If-Range": release.validator}
        async with self._asked(hdrs.METH_GET, self.source.archive, headers) as answer:
            if answer.status == HTTPStatus.OK:
                have = 0
            elif answer.status != HTTPStatus.PARTIAL_CONTENT or _start(answer) != have:
                _forget(part)
                raise _StartOverError
            rest = answer.content_length
            whole = release.size if rest is None else have + rest
            with part.open("ab" if have else "wb") as file:
                async for piece in answer.content.iter_chunked(PIECE_BYTES):
                    have += len(piece)
                    if have > self.bounds.archive_bytes:
                        raise UpdateError(
                            f"{self.source.archive.host} sends more than {self.bounds.archive_bytes} bytes, "
                            "which is no table: check --url and MAXMIND_URL."
                        )
                    file.write(piece)
                    on_progress(have, whole)

    @asynccontextmanager
    async def _asked(
        self, method: str, url: URL, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give the answer at the end of all redirects; raises UpdateError for a refusal."""
        sent = {**(headers or {}), **self.source.headers}
        async with self.http.request(
            method, url, headers=sent, proxy=_proxy(url), allow_redirects=True, max_redirects=MOST_REDIRECTS
        ) as answer:
            if url.scheme == "https" and answer.url.scheme != "https":
                raise UpdateError(f"{url.host} leads to a place without TLS: check --url and MAXMIND_URL.")
            if answer.status not in _ANSWERS:
                raise UpdateError(refusal(answer.status, answer.url, self.source))
            yield answer

    @asynccontextmanager
    async def _said(self) -> AsyncIterator[None]:
        try:
            yield
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UpdateError(failure(error, self.source)) from None


def _proxy(url: URL) -> str | None:
    """The environment's proxy. aiohttp's own trust_env would look for other credentials in ~/.netrc too."""
    return None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)


def _start(answer: aiohttp.ClientResponse) -> int | None:
    found = _RANGE.fullmatch(answer.headers.get(hdrs.CONTENT_RANGE, ""))
    return int(found[1]) if found else None


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC) if text else None
    except ValueError:
        return None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
