"""One port, WEB_CONCURRENCY processes: the parent opens the ports, loads the certificates and minds the others."""

import asyncio
import multiprocessing
import multiprocessing.connection
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from collector import plain_http
from collector.app import open_collector
from collector.ports import Answer, Tls, listen, open_door, open_tls
from collector.routes import answer
from collector.settings import CollectorSettings
from collector.tls import with_hsts
from process.logs import log
from process.run import FAILED, CannotStartError, give_up, run, stop_on_signals
from process.tasks import until_stopped

__all__ = ["listen", "serve", "supervise"]

CHILDREN_FINISH_SECONDS: Final = 9.0
"""For a child process to be gone after SIGTERM, before it is killed."""

FIRST_SECONDS: Final = 5.0
"""A child that fails within this of the start could not start at all."""

_RESTART_PAUSE_SECONDS: Final = 1.0


async def serve(
    settings: CollectorSettings, listener: socket.socket, worker: int = 0, tls: Tls | None = None
) -> int:
    """Serve on an open port until told to stop; what TLS needs is opened here if the caller has not."""
    tls = tls or open_tls(settings)
    stop = stop_on_signals()
    _stop_with_parent(stop)
    async with open_collector(settings, worker) as collector, AsyncExitStack() as stack:
        host, port, *_ = listener.getsockname()
        answering: Answer = partial(answer, collector)
        if settings.hsts_seconds:
            answering = with_hsts(answering, settings.hsts_seconds)
        doors = [await open_door(listener, answering, tls.certificates.context if tls else None)]
        if tls and tls.plain:
            doors.append(await open_door(tls.plain, partial(plain_http.answer, settings, port)))
        if tls:
            await stack.enter_async_context(tls.certificates.kept_fresh(worker, stop))
        log.info(
            "collector_started",
            host=host,
            port=port,
            tls=tls is not None,
            worker=worker,
            redis=len(settings.redis_urls),
        )
        await until_stopped(stop, collector.background)
        await asyncio.gather(*(door.close() for door in doors))
    return 0


def _stop_with_parent(stop: asyncio.Event) -> None:
    """Stop when the process that minds us is gone."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    loop = asyncio.get_running_loop()

    def parent_is_gone() -> None:
        loop.remove_reader(parent.sentinel)
        stop.set()

    loop.add_reader(parent.sentinel, parent_is_gone)


def supervise(settings: CollectorSettings, listener: socket.socket) -> int:
    """Keep WEB_CONCURRENCY processes serving until told to stop; one that dies is replaced."""
    context = multiprocessing.get_context("fork")
    try:
        tls = open_tls(settings)
    except CannotStartError as error:
        give_up(str(error), FAILED)

    def start(worker: int) -> multiprocessing.process.BaseProcess:
        child = context.Process(
            target=run, args=(partial(serve, settings, listener, worker, tls),), name=f"collector-{worker}"
        )
        child.start()
        return child

    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    began = time.monotonic()
    children = [start(worker) for worker in range(settings.web_concurrency)]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while not stopping:
        multiprocessing.connection.wait(
            [child.sentinel for child in children], timeout=_RESTART_PAUSE_SECONDS
        )
        for worker, child in enumerate(children):
            if stopping or child.is_alive():
                continue
            if child.exitcode == FAILED and time.monotonic() - began < FIRST_SECONDS:
                return max(
                    _stop(children), FAILED
                )  # it has said what is missing: the next one would say the same
            log.error("worker_died", worker=worker, exit_code=child.exitcode)
            time.sleep(_RESTART_PAUSE_SECONDS)
            children[worker] = start(worker)
    return _stop(children)


def _stop(children: Sequence[multiprocessing.process.BaseProcess]) -> int:
    """Tell all to stop, kill what does not; give the worst exit code."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + CHILDREN_FINISH_SECONDS
    for child in children:
        child.join(max(deadline - time.monotonic(), 0))
        if child.is_alive():
            child.kill()
            child.join()
    codes = (child.exitcode or 0 for child in children)
    return max(code if code >= 0 else FAILED for code in codes)
