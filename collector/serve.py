"""One port, WEB_CONCURRENCY processes: the parent opens the ports, loads the certificates and minds the others."""

import asyncio
import multiprocessing
import multiprocessing.connection
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from collector import plain_http
from collector.app import open_collector
from collector.health import metrics_text, readiness
from collector.ports import Ports
from collector.routes import answer, at_once
from collector.settings import CollectorSettings
from process import watch
from process.at_once import AtOnce
from process.board import Board
from process.logs import log
from process.ports import open_door
from process.run import FAILED, STOP_SIGNALS, run, stop_on_signals
from process.tasks import until_stopped

CHILDREN_FINISH_SECONDS: Final = 9.0
"""For a child process to be gone after SIGTERM, before it is killed."""

FIRST_SECONDS: Final = 5.0
"""A child that fails within this of the start could not start at all."""

_RESTART_PAUSE_SECONDS: Final = 1.0


async def serve(settings: CollectorSettings, ports: Ports, board: Board, worker: int = 0) -> int:
    """Serve on open ports until told to stop."""
    stop = stop_on_signals()
    _stop_with_parent(stop)
    async with open_collector(settings, board, worker) as collector, AsyncExitStack() as stack:
        host, port, *_ = ports.public.getsockname()
        tls = ports.certificates.context if ports.certificates else None
        quick = AtOnce(partial(at_once, collector), collector.end_turn)
        crowd = collector.crowd
        doors = [await open_door(ports.public, partial(answer, collector), tls, quick, crowd)]
        if ports.plain:
            redirecting = partial(plain_http.answer, settings, port)
            doors.append(await open_door(ports.plain, redirecting, crowd=crowd))
        if ports.certificates:
            await stack.enter_async_context(ports.certificates.kept_fresh(worker, stop))
        if ports.metrics:
            watched = watch.Watched(partial(metrics_text, collector), partial(readiness, collector))
            watching = await open_door(ports.metrics, partial(watch.answer, watched))
            stack.push_async_callback(watching.close)  # the last to close: it tells that we are stopping
        log.info(
            "collector_started",
            host=host,
            port=port,
            tls=tls is not None,
            worker=worker,
            redis=len(settings.redis_urls),
            most_connections=crowd.most,
        )
        await until_stopped(stop, collector.background)
        collector.stopping = True
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


def supervise(settings: CollectorSettings, ports: Ports, board: Board) -> int:
    """Keep WEB_CONCURRENCY processes serving until told to stop; one that dies is replaced."""
    context = multiprocessing.get_context("fork")

    def start(worker: int) -> multiprocessing.process.BaseProcess:
        child = context.Process(
            target=run, args=(partial(serve, settings, ports, board, worker),), name=f"collector-{worker}"
        )
        child.start()
        return child

    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    began = time.monotonic()
    children = [start(worker) for worker in range(settings.web_concurrency)]
    for number in STOP_SIGNALS:
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
