"""A TCP proxy between us and a server: it loses replies, delivers late, hangs, cuts. What networks do, on purpose.

`CuttingProxy` relays what comes; `KafkaProxy` reads Kafka's frames, stands in for a lone broker, and puts error
codes into its answers. Whoever runs one must not block the event loop it runs in.
"""

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass

CHUNK_BYTES = 64 * 1024

PRODUCE, METADATA, FIND_COORDINATOR, INIT_PRODUCER_ID, ADD_PARTITIONS, END_TXN = 0, 3, 10, 22, 24, 26

CRC_AT = 4 + 4 + 4 + 8 + 4 + 4 + 1
"""Behind a topic's name in a produce request: partitions, partition, bytes; offset, bytes, epoch, magic."""

ANSWER_BYTES = {3: 22, 4: 22, 5: 30, 6: 30, 7: 30}
"""What a reply holds of one partition, by version: partition, error code, offset, time, since 5 also first offset."""

Request = Callable[[bytes], bool]
"""Tells whether a request is the one."""


class CutError(ConnectionResetError):
    """The connection ends here."""


class CuttingProxy:
    """Relays to `target_port` until told otherwise. `url` takes the place of the server's."""

    scheme = "redis"

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.faults = 0
        """Replies lost, requests delivered late or not at all, so far."""
        self.late = 0
        """Requests that arrived late."""
        self._plan: tuple[Request, Callable[[bytes, Connection], None]] | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._refuses = False
        self._connections: set[Connection] = set()
        self._late: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def lose_reply_to(self, request: Request) -> None:
        """Cut the connection instead of passing on the reply to the next such request: it has been carried out."""

        def lose(_data: bytes, connection: Connection) -> None:
            connection.loses_reply = True

        self._plan = request, lose

    def deliver_late(self, request: Request, seconds: float) -> None:
        """Cut the connection at the next such request, and let the server have it when nobody waits any more."""

        def hold_back(data: bytes, _connection: Connection) -> None:
            self._keep(self._deliver(data, seconds))
            raise CutError

        self._plan = request, hold_back

    def at(self, request: Request, act: Callable[[], None]) -> None:
        """Call `act` at the next such request, and let it pass."""
        self._plan = request, lambda _data, _connection: act()

    def instead_of(self, request: Request, act: Callable[[], None]) -> None:
        """Call `act` at the next such request, which never arrives, and cut the connection."""

        def do_that(_data: bytes, _connection: Connection) -> None:
            act()
            raise CutError

        self._plan = request, do_that

    def hang(self) -> None:
        """Take connections and requests, and pass nothing on."""
        self._open.clear()

    def go_away(self) -> None:
        """Cut every connection, and each new one at once."""
        self._refuses = True
        for connection in list(self._connections):
            connection.cut()

    def come_back(self) -> None:
        self._refuses = False
        self._open.set()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            if self._refuses:
                return
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            return
        else:
            connection = Connection(writer, server_writer)
            self._connections.add(connection)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._requests(reader, connection))
                    group.create_task(self._replies(server_reader, connection))
            except* (OSError, EOFError):
                pass
            finally:
                self._connections.discard(connection)
                connection.cut()
        finally:
            writer.transport.abort()

    async def messages(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """Split a stream into what is relayed at once."""
        while data := await reader.read(CHUNK_BYTES):
            yield data

    def asked(self, request: bytes, _connection: "Connection") -> bytes:
        """See a request on its way; gives what the server gets."""
        return request

    def answered(self, reply: bytes, _connection: "Connection") -> bytes:
        """See a reply on its way; gives what the client gets."""
        return reply

    async def end(self) -> None:
        """Deliver nothing more."""
        self.go_away()
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, connection: "Connection") -> None:
        async for data in self.messages(reader):
            await self._open.wait()
            if self._plan is not None and self._plan[0](data):
                happens, self._plan = self._plan[1], None
                self.faults += 1
                happens(data, connection)
            connection.server.write(self.asked(data, connection))
            await connection.server.drain()
        raise CutError

    async def _replies(self, server: asyncio.StreamReader, connection: "Connection") -> None:
        async for data in self.messages(server):
            if connection.loses_reply:
                break
            connection.client.write(self.answered(data, connection))
            await connection.client.drain()
        raise CutError

    def _keep(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _deliver(self, data: bytes, seconds: float) -> None:
        await asyncio.sleep(seconds)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            return  # nobody is there any more: it never arrives
        writer.write(data)
        await reader.read(CHUNK_BYTES)
        self.late += 1
        writer.transport.abort()


class Connection:
    """A client's connection, and ours to the server for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.loses_reply = False
        self.asked: dict[bytes, int] = {}
        """Which API was asked, by correlation id: Kafka's replies do not say."""
        self.refused: dict[bytes, Refusal] = {}
        """What was damaged on its way, by correlation id."""

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A partition that is refused in one produce request."""

    topic: bytes
    partition: bytes
    error: int
    answer_bytes: int

    def code_at(self, reply: bytes) -> int:
        """Find the error code of the partition: brokers answer in an order of their own."""
        begin = reply.index(self.topic) + len(self.topic)
        for at in range(begin + 4, len(reply), self.answer_bytes):
            if reply[at : at + 4] == self.partition:
                return at + 4
        raise AssertionError("the broker did not answer for it")


class KafkaProxy(CuttingProxy):
    """Stands in for a lone broker: clients that were told its address are told ours instead."""

    scheme = "kafka"

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._refusals: list[tuple[bytes, int]] = []

    def refuse(self, topic: str, error: int) -> None:
        """Have the broker refuse the first partition of the next produce request for a topic, with this error code.

        What it gets is damaged on the way, so it really takes none of that; of other partitions it takes everything.
        """
        self._refusals.append((struct.pack(">h", len(topic)) + topic.encode(), error))

    async def messages(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                size = await reader.readexactly(4)
                yield size + await reader.readexactly(int.from_bytes(size))

    def asked(self, request: bytes, connection: Connection) -> bytes:
        api = api_of(request)
        connection.asked[request[8:12]] = api
        for refusal in self._refusals if api == PRODUCE else ():
            topic, error = refusal
            if (found := request.find(topic)) >= 0:
                self._refusals.remove(refusal)
                begin = found + len(topic)
                partition, at = request[begin + 4 : begin + 8], begin + CRC_AT
                answer_bytes = ANSWER_BYTES[int.from_bytes(request[6:8])]
                connection.refused[request[8:12]] = Refusal(topic, partition, error, answer_bytes)
                return request[:at] + bytes([request[at] ^ 0xFF]) + request[at + 1 :]
        return request

    def answered(self, reply: bytes, connection: Connection) -> bytes:
        correlation = reply[4:8]
        if connection.asked.pop(correlation, None) in (METADATA, FIND_COORDINATOR):
            return reply.replace(struct.pack(">i", self.target_port), struct.pack(">i", self.port))
        if correlation in connection.refused:
            refusal = connection.refused.pop(correlation)
            at = refusal.code_at(reply)
            assert reply[at : at + 2] != bytes(2), "the broker took it"
            self.faults += 1
            return reply[:at] + struct.pack(">h", refusal.error) + reply[at + 2 :]
        return reply


def api_of(request: bytes) -> int:
    """Tell which API a request of Kafka's protocol is for."""
    return int.from_bytes(request[4:6])


def asks_for(api: int, nth: int = 1) -> Request:
    """Give what recognizes the nth request for an API."""
    number = itertools.count(1)
    return lambda request: api_of(request) == api and next(number) == nth


@contextlib.asynccontextmanager
async def cutting(proxy: CuttingProxy) -> AsyncIterator[CuttingProxy]:
    """Run a proxy on any free port."""
    server = await asyncio.start_server(proxy.relay, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        await proxy.end()
        server.close()
