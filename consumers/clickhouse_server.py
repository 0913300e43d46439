"""ClickHouse by HTTP: one question, one answer, and whether an error is the rows' fault or the server's."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote, urlsplit

import aiohttp
from pydantic import SecretStr

from consumers.sink import RefusedError, SinkAwayError

_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 60.0
"""For a question: the position in a table of a billion rows is one of seconds."""

_LONG: Final = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS, sock_read=_ANSWER_SECONDS)
"""For an answer of any length, as long as it goes on."""

_ATTEMPTS: Final = 3
_AGAIN_SECONDS: Final = 0.5
"""Between attempts to insert the same rows under the same token; then the loop's own, longer pauses."""

_GZIP_LEVEL: Final = 1
"""A fifth of the size for 10 µs a click; higher levels cost twice that for a tenth less."""

_MOST_REASON: Final = 500
"""Characters of what ClickHouse says."""

_ROWS_FAULT: Final = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        25,  # CANNOT_PARSE_ESCAPE_SEQUENCE
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        131,  # TOO_LARGE_STRING_SIZE
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        376,  # CANNOT_PARSE_UUID
        469,  # VIOLATED_CONSTRAINT
    }
)


class ClickHouseServer:
    """The server behind CLICKHOUSE_URL: http(s)://user:password@host:port/database."""

    def __init__(self, url: SecretStr) -> None:
        parts = urlsplit(url.get_secret_value())
        self._url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
        self._database = parts.path.strip("/") or "default"
        self._headers = {"X-ClickHouse-User": unquote(parts.username or "default")}
        if parts.password:
            self._headers["X-ClickHouse-Key"] = unquote(parts.password)
        self._client: aiohttp.ClientSession | None = None

    async def ask(self, sql: str) -> bytes:
        """Give the answer to a question, as its FORMAT says; raises SinkAwayError, RefusedError."""
        return await self._post({}, sql.encode(), {})

    async def insert(self, sql: str, rows: Sequence[bytes]) -> None:
        """Insert rows; raises RefusedError where one of them is at fault, SinkAwayError."""
        # zlib lets go of the interpreter: brokers are answered while it works.
        body = await asyncio.to_thread(gzip.compress, b"\n".join(rows), _GZIP_LEVEL)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._post({"query": sql}, body, {"Content-Encoding": "gzip"})
            except SinkAwayError:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    async def lines(self, sql: str) -> AsyncIterator[bytes]:
        """Give the lines of a long answer as they come; raises SinkAwayError. Each is to be looked at.

        What goes wrong in the middle of it is a line, too.
        """
        try:
            async with self._opened().post(
                self._url, params={"database": self._database}, data=sql.encode(), timeout=_LONG
            ) as answer:
                if answer.status != HTTPStatus.OK:
                    text = (await answer.read()).decode("utf-8", "replace").strip()[:_MOST_REASON]
                    raise SinkAwayError(f"ClickHouse answers {answer.status}: {text}")
                async for line in answer.content:
                    yield line
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SinkAwayError(f"ClickHouse gives no answer: {error!r}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._client is None:
            timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
            self._client = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self._client

    async def _post(self, query: dict[str, str], body: bytes, headers: dict[str, str]) -> bytes:
        query = {"database": self._database, "wait_end_of_query": "1", **query}
        try:
            async with self._opened().post(self._url, params=query, data=body, headers=headers) as answer:
                said = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SinkAwayError(f"ClickHouse gives no answer: {error!r}") from error
        if answer.status == HTTPStatus.OK:
            return said
        text = said.decode("utf-8", "replace").strip()[:_MOST_REASON]
        code = answer.headers.get("X-ClickHouse-Exception-Code", "")
        if code.isdecimal() and int(code) in _ROWS_FAULT:
            raise RefusedError(f"ClickHouse refuses this: {text}")
        raise SinkAwayError(f"ClickHouse answers {answer.status}: {text}")
