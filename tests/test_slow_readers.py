"""Clients that ask and do not take their answers: they cost little, and not for ever."""

import asyncio
import socket

import pytest
from aiohttp import web

from process.crowd import Crowd
from process.ports import listen, open_door
from process.protocol import AHEAD_BYTES

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux ends them")

ANSWER = bytes(20_000)
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def visited(monkeypatch):
    """Give a door's port and crowd, and how many answers were made; a client has a second to take something."""
    monkeypatch.setattr("process.ports.TAKE_SECONDS", 1.0)
    crowd, answers = Crowd(100), []

    async def answer(_request):
        answers.append(None)
        return web.Response(body=ANSWER)

    listener = listen("127.0.0.1", 0)
    door = await open_door(listener, answer, crowd=crowd)
    yield listener.getsockname()[1], crowd, answers
    await door.close()


async def arrive(port):
    """Connect with a small window, so that little is on the way."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)  # noqa: FBT003 (the socket module has it so)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    return client


async def test_who_takes_nothing_is_cut_off_and_little_was_made_for_him(visited):
    port, crowd, answers = visited
    client = await arrive(port)
    await asyncio.get_running_loop().sock_sendall(client, ASK * 1000)
    async with asyncio.timeout(10):
        while len(crowd) != 1:
            await asyncio.sleep(0.02)
        while len(crowd):
            await asyncio.sleep(0.05)
    assert len(answers) * len(ANSWER) < 6 * AHEAD_BYTES
    client.close()


async def test_who_takes_a_little_now_and_then_gets_it_all(visited):
    port, _, answers = visited
    client = await arrive(port)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, ASK * 10)
    taken = b""
    async with asyncio.timeout(30):
        while taken.count(ANSWER) < 10:
            await asyncio.sleep(0.1)  # 20 s at this pace would be too long for one who took nothing
            taken += await loop.sock_recv(client, 8192)
    assert len(answers) == 10
    client.close()
