"""One port, WEB_CONCURRENCY processes: the parent opens the port and minds the others."""

import asyncio
import multiprocessing
import multiprocessing.connection
import signal
import socket
import time
from functools import partial
from typing import Final

from aiohttp import web

from collector.app import open_collector
from collector.protocol import server
from collector.routes import answer
from collector.settings import CollectorSettings
from process.logs import log
from process.run import CannotStartError, run, stop_on_signals

REQUESTS_FINISH_SECONDS: Final = 3.0
"""For requests in hand when told to stop; with 3 s for the shipper and slack this stays below 10 s."""

CHILDREN_FINISH_SECONDS: Final = 9.0
"""For a child process to be gone after SIGTERM, before it is killed."""

_BACKLOG: Final = 1024
_RESTART_PAUSE_SECONDS: Final = 1.0


def listen(host: str, port: int) -> socket.socket:
    """Open the port; raises CannotStartError with the cure."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise CannotStartError(
            f"Cannot listen on {host} port {port} ({error.strerror}): "
            "stop the program that uses it, or set PORT to another one."
        ) from None


async def serve(settings: CollectorSettings, listener: socket.socket, worker: int = 0) -> int:
    """Serve on an open port until told to stop."""
    stop = stop_on_signals()
    parent = multiprocessing.parent_process()
    if parent is not None:
        asyncio.get_running_loop().add_reader(parent.sentinel, stop.set)
    try:
        async with open_collector(settings, worker) as collector:
            runner = web.ServerRunner(
                server(partial(answer, collector)),
                shutdown_timeout=REQUESTS_FINISH_SECONDS,
            )
            await runner.setup()
            await web.SockSite(runner, listener, backlog=_BACKLOG).start()
            host, port, *_ = listener.getsockname()
            log.info("collector_started", host=host, port=port, worker=worker, redis=len(settings.redis_urls))
            await stop.wait()
            await runner.cleanup()
    except OSError as error:
        raise CannotStartError(
            f"The journal cannot be written ({error}): set JOURNAL_DIR to a folder of ours."
        ) from None
    return 0


def supervise(settings: CollectorSettings, listener: socket.socket) -> int:
    """Keep WEB_CONCURRENCY processes serving until told to stop; one that dies is replaced."""
    context = multiprocessing.get_context("fork")

    def start(worker: int) -> multiprocessing.process.BaseProcess:
        child = context.Process(
            target=run, args=(partial(serve, settings, listener, worker),), name=f"collector-{worker}"
        )
        child.start()
        return child

    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    children = [start(worker) for worker in range(settings.web_concurrency)]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while not stopping:
        multiprocessing.connection.wait(
            [child.sentinel for child in children], timeout=_RESTART_PAUSE_SECONDS
        )
        for worker, child in enumerate(children):
            if not stopping and not child.is_alive():
                log.error("worker_died", worker=worker, exit_code=child.exitcode)
                time.sleep(_RESTART_PAUSE_SECONDS)
                children[worker] = start(worker)
    for child in children:
        child.terminate()
    deadline = time.monotonic() + CHILDREN_FINISH_SECONDS
    for child in children:
        child.join(max(deadline - time.monotonic(), 0))
        if child.is_alive():
            child.kill()
    return max((child.exitcode or 0) for child in children)
