"""Many visitors at once: there is a bound, nobody's click is lost for it, and files are left for the journal."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass

import pytest
import trustme
from processes import SCRIPTS, has_said, running
from test_health import environ_of, metrics

from process.crowd import KEPT_FILES, Crowd

MOST = 16
ASK = b"GET /unknown HTTP/1.1\r\nHost: x\r\nUser-Agent: iPhone\r\n\r\n"


@pytest.fixture(params=["plain", "tls"])
def speaking(request):
    """Give a collector's variables, and a client's context."""
    if request.param == "plain":
        return {}, None
    certificate = trustme.CA().issue_cert("localhost")
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems).decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return {"TLS_CERT": chain, "TLS_KEY": certificate.private_key_pem.bytes().decode()}, context


@contextlib.contextmanager
def collecting(tmp_path, redis_server, **environ):
    environ = environ_of(tmp_path, redis_server.url, MAX_CONNECTIONS=MOST, LOG_LEVEL="info", **environ)
    with running(tmp_path, "collector", "serve", answers=has_said("collector_started"), **environ):
        yield environ


@pytest.fixture
async def arrive():
    """Give a function that connects a visitor."""
    writers = []

    async def connect(port, context=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def asked(reader, writer):
    """Ask, and give the status; None if the connection was closed."""
    try:
        async with asyncio.timeout(10):
            writer.write(ASK)
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return int(head.split(b" ")[1])


async def test_who_was_silent_longest_makes_room_and_every_visit_is_answered_and_written_down(
    tmp_path, redis_server, speaking, arrive
):
    variables, context = speaking
    with collecting(tmp_path, redis_server, **variables) as environ:
        kept = [await arrive(environ["PORT"], context)]
        for number in range(6 * MOST):
            await asyncio.sleep(0.003)  # the loop's clock counts milliseconds
            kept.append(await arrive(environ["PORT"], context))
            assert await asked(*kept[-1]) == 404
            if number in {MOST - 2, MOST}:
                assert await asked(*kept[0]) == 404, "others were silent longer than the first one"
        counted = await metrics(environ["METRICS_PORT"])
        assert counted["onward_connections", ()] == counted["onward_connections_max", ()] == MOST
        assert counted["onward_connections_closed_total", (("which", "idle"),)] == len(kept) - MOST
        assert counted["onward_connections_closed_total", (("which", "new"),)] == 0
        assert counted["onward_events_recorded_total", (("topic", "orphans"),)] == 6 * MOST + 2
        assert ("onward_events_dropped_total", (("reason", "journal_write"),)) not in counted
        assert [await asked(*one) for one in kept[-MOST:]] == [404] * MOST
        assert [await asked(*one) for one in kept[:-MOST]] == [None] * (len(kept) - MOST)


async def test_who_waits_for_an_answer_is_not_closed_for_a_new_one(tmp_path, redis_server, arrive):
    in_hand, answered = 0, asyncio.Event()

    async def site(reader, writer):
        nonlocal in_hand
        await reader.readuntil(b"\r\n\r\n")
        in_hand += 1
        await answered.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Type: text/plain\r\n\r\npage")
        writer.close()

    upstream = await asyncio.start_server(site, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    with collecting(tmp_path, redis_server, FRONTEND_URL=f"http://127.0.0.1:{port}") as environ:
        asking = [asyncio.create_task(asked(*await arrive(environ["PORT"]))) for _ in range(MOST)]
        async with asyncio.timeout(10):
            while in_hand < MOST:
                await asyncio.sleep(0.02)
        assert await asked(*await arrive(environ["PORT"])) is None
        counted = await metrics(environ["METRICS_PORT"])
        assert counted["onward_connections_closed_total", (("which", "new"),)] == 1
        assert counted["onward_connections_closed_total", (("which", "idle"),)] == 0
        answered.set()
        assert await asyncio.gather(*asking) == [200] * MOST
        await asyncio.sleep(0.05)  # for so long nobody looked who is silent
        assert await asked(*await arrive(environ["PORT"])) == 200, "one that is silent now made room"
    upstream.close()


def _connected(port, context):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    return context.wrap_socket(client) if context else client


async def test_who_takes_no_answer_makes_room(tmp_path, redis_server, speaking, arrive):
    variables, context = speaking
    with collecting(tmp_path, redis_server, **variables) as environ, contextlib.ExitStack() as stack:
        for _ in range(MOST):
            client = stack.enter_context(await asyncio.to_thread(_connected, environ["PORT"], context))
            client.setblocking(False)  # noqa: FBT003 (the socket module has it so)
            with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
                while True:
                    client.send(ASK * 100)
        async with asyncio.timeout(10):
            while await asked(*await arrive(environ["PORT"], context)) is None:
                await asyncio.sleep(0.2)  # until then their requests are in hand
        for _ in range(2):
            assert await asked(*await arrive(environ["PORT"], context)) == 404


async def test_who_says_no_goodbye_makes_room(tmp_path, redis_server, speaking, arrive):
    variables, context = speaking
    with collecting(tmp_path, redis_server, **variables) as environ, contextlib.ExitStack() as stack:
        for _ in range(MOST):
            client = stack.enter_context(await asyncio.to_thread(_connected, environ["PORT"], context))
            client.sendall(ASK.replace(b"Host", b"Connection: close\r\nHost"))
        for _ in range(3):
            assert await asked(*await arrive(environ["PORT"], context)) == 404
            await asyncio.sleep(0.5)


@dataclass(eq=False)
class Visitor:
    since: float | None
    here: bool = True

    def silent_since(self):
        return self.since

    def abort(self):
        self.here = False


def test_a_64th_makes_room_together():
    crowd = Crowd(640)
    visitors = [Visitor(float(-number) if number % 2 else None) for number in range(640)]
    for visitor in visitors:
        crowd.add(visitor)
    assert len(crowd) == 640
    crowd.add(Visitor(0.0))
    gone = [number for number, visitor in enumerate(visitors) if not visitor.here]
    assert gone == list(range(621, 640, 2))
    assert (len(crowd), crowd.gave_way, crowd.refused) == (631, 10, 0)


def test_newcomers_to_a_crowd_that_waits_for_answers_do_not_cost_a_look_each():
    looks = []

    class Waiting(Visitor):
        def silent_since(self):
            looks.append(None)

    crowd = Crowd(640)
    for _ in range(640 + 50):
        crowd.add(Waiting(None))
    assert crowd.refused == 50
    assert len(looks) <= 640 * 10


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed"),
    [
        (64, 1500, 500, 500),  # the soft limit is raised
        (64, 1200, 1000, 1200 - KEPT_FILES),
        (64, 300, 500, 150),  # half is left to us, where that is little
    ],
)
def test_so_many_files_are_opened_as_the_system_allows(soft, hard, wanted, allowed):
    say = (
        "import resource; from process.crowd import connections_allowed; "
        f"print(connections_allowed({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    limited = ["bash", "-c", f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"', "-", sys.executable]
    said = subprocess.run([*limited, "-c", say], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == [str(allowed), str(min(wanted + KEPT_FILES, hard)), str(hard)]


def test_check_says_that_the_system_allows_fewer(tmp_path, redis_server):
    environ = {name: str(value) for name, value in environ_of(tmp_path, redis_server.url).items()}
    limited = ["bash", "-c", 'ulimit -n 1200; exec "$@"', "-", SCRIPTS / "collector", "check"]
    checked = subprocess.run(limited, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (
        "688 visitors can be connected at once, not MAX_CONNECTIONS=5000" in checked.stdout + checked.stderr
    )
