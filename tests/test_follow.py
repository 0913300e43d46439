"""Whether a visitor is answered at once or in aiohttp's own way, he and the event are told the same."""

from functools import partial

import aiohttp
import pytest
from test_write_down import written_events
from yarl import URL

from collector.app import open_collector
from collector.event import decode_params
from collector.routes import answer, at_once
from collector.settings import CollectorSettings
from embedded.ports import free_port
from links.link import link_of
from links.store import LinkStore
from process.at_once import AtOnce
from process.board import Board
from process.ports import listen, open_door
from process.settings import read_settings

TARGETS = {"ios": "https://apps.example/i?c={click_id}", "default": "https://shop.example/ü"}
LINKS = [
    {"id": 1, "slug": "one", "campaign": "Größe & Co", "target_url": TARGETS, "forward_query": True},
    {"id": 2, "slug": "off", "target_url": TARGETS, "enabled": False},
    {"id": 3, "slug": "over", "target_url": TARGETS, "expires_at": "2020-01-01T00:00:00Z"},
    {"id": 4, "slug": "soon", "target_url": TARGETS, "starts_at": "2099-01-01T00:00:00Z"},
    {"id": 5, "slug": "nowhere"},
]
IPHONE = {
    "User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X)",
    "Referer": "https://a.example/x",
}
DIFFERENT_EACH_TIME = (b"event_id", b"clicked_at", b"created_at", b"attr_window_from", b"redirect_url")


@pytest.fixture(params=["", "https://www.example.com/unknown"], ids=["no error page", "error page"])
async def site(request, tmp_path):
    """Give a collector with these links, and its address."""
    environ = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/onward.db",
        "JOURNAL_DIR": str(tmp_path / "journal"),
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "ERROR_PAGE_URL": request.param,
    }
    store = LinkStore(environ["DATABASE_URL"])
    await store.prepare()
    await store.save([link_of(record) for record in LINKS])
    await store.close()
    async with open_collector(read_settings(CollectorSettings, environ), Board(1)) as collector:
        listener = listen("127.0.0.1", 0)
        quick = AtOnce(partial(at_once, collector), collector.end_turn)
        door = await open_door(listener, partial(answer, collector), None, quick)
        try:
            yield collector, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await door.close()


@pytest.mark.parametrize(
    "path",
    [f"/click/{number}/go?x=%C3%BC&click=7" for number in (1, 2, 3, 4, 5, 6, "abc", "0001", "٣")]
    + [f"/{slug}?x=1" for slug in ("one", "off", "over", "soon", "nowhere", "nobody", "api", "apple-x")],
)
async def test_an_answer_at_once_is_the_one_that_would_be_given_anyway(site, path):
    collector, base = site
    answers = []
    async with aiohttp.ClientSession() as visitor:
        for more in ({}, {"Connection": "close"}, {}):  # the second is never answered at once
            async with visitor.get(
                URL(base + path, encoded=path.isascii()), headers=IPHONE | more, allow_redirects=False
            ) as found:
                kept = {
                    name: value for name, value in found.headers.items() if name not in ("Date", "Connection")
                }
                assert await found.read() == b""
                target = kept.pop("Location", "").partition("c=")
                answers.append((found.status, sorted(kept.items()), target[0], len(target[2])))
    assert answers[1:] == answers[:1] * 2
    events = [_same(event) for event in written_events(collector)]
    assert events == events[:1] * len(events)
    assert len(events) == (0 if path.startswith("/ap") else 3)
    assert {status for (_, status), _ in collector.answered.items()} == {answers[0][0]}


def _same(event):
    params = decode_params(event.params)
    kept = {name: value for name, value in params.items() if name not in DIFFERENT_EACH_TIME}
    return event.ip, event.topic, event.path, event.user_agent, kept
