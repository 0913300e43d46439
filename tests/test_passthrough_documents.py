"""Pages in memory: what is kept, for whom and for how long, and how much of it there may be."""

from pathlib import Path

import pytest
import yaml
from multidict import CIMultiDict

from collector import caching
from collector.document import MOST_QUERIES
from collector.documents import (
    LARGEST_BYTES,
    MOST_BYTES,
    MOST_INCOMING_BYTES,
    MOST_PAGES,
    MOST_VARIANTS,
    Documents,
)
from collector.wanted import Wanted

CASES = yaml.safe_load((Path(__file__).parent / "data" / "caching.yml").read_text("utf-8"))
WEEK = 7 * 86400


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_headers_say_about_keeping_an_answer(case):
    asked, answer = (CIMultiDict(case.get(name, {})) for name in ("asked", "answer"))
    assert caching.may_be_kept(asked, answer) == case.get("kept", False)
    assert caching.fresh_seconds(answer) == case.get("fresh", 0)
    assert caching.stale_seconds(answer) == case.get("stale", WEEK)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("", "/p"),
        ("utm_source=a&utm_medium=b", "/p"),
        ("page=2&utm_source=a&gclid=x", "/p?page=2"),
        ("b=1&fbclid=1&a=2", "/p?b=1&a=2"),
        ("utm_source", "/p"),
        ("utm_sourcery", "/p"),
        ("xutm_source=1", "/p?xutm_source=1"),
        ("q=utm_source=1", "/p?q=utm_source=1"),
        ("gclidx=1", "/p?gclidx=1"),
        ("utm_source=a;page=2", "/p?utm_source=a;page=2"),
        ("a=&&b", "/p?a=&&b"),
    ],
)
def test_a_page_has_one_name_whoever_sent_the_visitor(query, page):
    assert caching.page_of("/p", query) == page


@pytest.mark.parametrize(
    ("method", "headers", "may"),
    [
        ("GET", {}, True),
        ("HEAD", {}, True),
        ("GET", {"Cookie": "a=b"}, True),
        ("POST", {}, False),
        ("OPTIONS", {}, False),
        ("GET", {"Authorization": "Basic x"}, False),
        ("GET", {"Range": "bytes=0-"}, False),
        ("GET", {"If-Match": "x"}, False),
        ("GET", {"Upgrade": "websocket"}, False),
    ],
)
def test_which_requests_can_be_answered_with_what_others_got(method, headers, may):
    assert caching.may_come_from_memory(method, CIMultiDict(headers)) == may


@pytest.mark.parametrize(
    ("headers", "newest"),
    [
        ({}, False),
        ({"Cache-Control": "no-cache"}, True),
        ({"Cache-Control": "max-age=0"}, True),
        ({"Pragma": "no-cache"}, True),
        ({"Cache-Control": "max-age=5"}, False),
    ],
)
def test_a_visitor_who_reloads_gets_the_newest(headers, newest):
    assert caching.wants_the_newest(CIMultiDict(headers)) == newest


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def documents(clock):
    return Documents(clock)


def wanted(path="/", query="", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Wanted("https", "www.example.com", path, query, CIMultiDict(names))


def keep(documents, asked, body=b"page", **headers):
    names = CIMultiDict((name.replace("_", "-"), value) for name, value in headers.items())
    incoming = documents.incoming(asked, 200, names, ends_visibly=True)
    if incoming is not None:
        incoming.add(body)
        incoming.close(whole=True)
    return documents.find(asked)


def is_fresh(documents, asked):
    return documents.find(asked).is_fresh(asked.query, asked.headers, documents.now())


def test_a_page_is_fresh_for_as_long_as_the_frontend_said_and_for_the_query_it_said_it_for(documents, clock):
    keep(documents, wanted(query="utm_source=a"), Cache_Control="max-age=60")
    assert is_fresh(documents, wanted(query="utm_source=a"))
    assert not is_fresh(documents, wanted()), "known under another query: there is a copy to ask about"
    clock.now += 60
    assert not is_fresh(documents, wanted(query="utm_source=a"))
    document = documents.find(wanted())
    assert document.good_until > clock.now
    assert documents.confirm(wanted(), document, CIMultiDict({"Cache-Control": "max-age=5"})) is document
    assert is_fresh(documents, wanted())
    assert not is_fresh(documents, wanted(query="utm_source=a"))


def test_the_same_page_under_another_query_takes_no_freshness_away(documents):
    keep(documents, wanted(), Cache_Control="max-age=60")
    keep(documents, wanted(query="utm_source=a"), Cache_Control="max-age=60")
    assert is_fresh(documents, wanted())
    keep(documents, wanted(query="utm_source=b"), b"changed", Cache_Control="max-age=60")
    assert not is_fresh(documents, wanted())
    assert documents.bytes == documents.find(wanted()).size


def test_a_visitor_with_a_cookie_gets_only_what_is_public_unasked(documents):
    keep(documents, wanted(), Cache_Control="max-age=60")
    assert not is_fresh(documents, wanted(Cookie="a=b"))
    keep(documents, wanted(), Cache_Control="public, max-age=60")
    assert is_fresh(documents, wanted(Cookie="a=b"))
    assert not is_fresh(documents, wanted(Cookie="a=b", Cache_Control="no-cache"))


@pytest.mark.parametrize(
    ("accepted", "codings"),
    [
        ("", ""),
        ("gzip, deflate, br, zstd", "br deflate gzip zstd"),
        ("BR,gzip;q=0.5 , zstd; q=1", "br gzip zstd"),
        ("gzip;q=0, br;q=0.0,deflate; q=0.001", "deflate"),
        ("identity", ""),
        ("*", "*"),
    ],
)
def test_codings_are_the_same_however_they_are_named(accepted, codings):
    assert caching.codings_of(accepted) == codings


@pytest.mark.parametrize("vary", [{"Vary": "Accept-Encoding"}, {}])
def test_a_compressed_copy_is_for_those_who_take_it(documents, vary):
    keep(documents, wanted(Accept_Encoding="gzip, br"), b"zipped", **vary)
    assert documents.find(wanted()) is None
    keep(documents, wanted(), b"plain", **vary)
    assert documents.find(wanted(Accept_Encoding="br,GZIP")).body == b"zipped"
    assert documents.find(wanted()).body == b"plain"
    assert len(documents) == 1


def test_what_a_confirmation_says_anew_counts_and_what_is_of_the_body_stays(documents):
    document = keep(documents, wanted(), ETag='"1"', Content_Type="text/html", X_Old="1", Age="7")
    assert "Age" not in document.headers
    by = CIMultiDict({"ETag": 'W/"1"', "Content-Length": "0", "Content-Type": "text/plain", "X-New": "2"})
    documents.confirm(wanted(), document, by)
    assert documents.bytes == document.size
    headers = documents.find(wanted()).headers.copy()
    assert headers.pop("Date").endswith(" GMT")
    assert headers == {
        "Content-Type": "text/html",
        "X-Old": "1",
        "ETag": 'W/"1"',
        "X-New": "2",
    }


@pytest.mark.parametrize("headers", [{"Set-Cookie": "a=b"}, {"Cache-Control": "private"}])
def test_a_confirmation_for_one_visitor_is_told_to_nobody_else(documents, headers):
    document = keep(documents, wanted(), ETag='"1"')
    before = dict(document.headers)
    own = documents.confirm(wanted(), document, CIMultiDict(headers))
    assert own is not document
    assert headers.items() <= dict(own.headers).items()
    assert document.headers == before, "another visitor may be about to get it"
    assert documents.find(wanted()) is None
    assert documents.bytes == 0


def test_a_confirmation_to_a_visitor_with_a_cookie_changes_nothing_for_others(documents, clock):
    document = keep(documents, wanted(), ETag='"1"')
    clock.now += 100
    own = documents.confirm(wanted(Cookie="a=b"), document, CIMultiDict({"Cache-Control": "max-age=60"}))
    assert own is not document
    assert documents.find(wanted()) is document
    assert not is_fresh(documents, wanted())


@pytest.mark.parametrize("status", [301, 302, 404, 410])
def test_a_page_that_is_no_more_there_is_forgotten(documents, status):
    keep(documents, wanted())
    documents.incoming(wanted(Cookie="a=b"), status, CIMultiDict(), ends_visibly=True)
    assert len(documents) == 1, "what one visitor is told says nothing of the others"
    documents.incoming(wanted(), 403, CIMultiDict(), ends_visibly=True)
    assert len(documents) == 1
    documents.incoming(wanted(query="utm_source=x"), status, CIMultiDict(), ends_visibly=True)
    assert (len(documents), documents.bytes) == (0, 0)


@pytest.mark.parametrize(
    ("path", "status", "headers", "kept"),
    [
        ("/", 200, {"Content-Type": "application/json"}, True),
        ("/index.html", 200, {}, True),
        ("/deep/page", 200, {"Content-Type": "Text/HTML; charset=utf-8"}, True),
        ("/style.css", 200, {"Content-Type": "text/css"}, False),
        ("/", 206, {}, False),
        ("/", 404, {"Content-Type": "text/html"}, False),
    ],
)
def test_pages_are_kept_and_nothing_else(documents, path, status, headers, kept):
    incoming = documents.incoming(wanted(path), status, CIMultiDict(headers), ends_visibly=True)
    assert (incoming is not None) == kept
    assert documents.incoming(wanted(path), status, CIMultiDict(headers), ends_visibly=False) is None


def test_a_page_that_broke_off_is_not_kept(documents):
    incoming = documents.incoming(wanted(), 200, CIMultiDict(), ends_visibly=True)
    incoming.add(b"half")
    incoming.close(whole=False)
    assert documents.find(wanted()) is None
    assert documents.incoming_bytes == 0


def test_memory_is_bounded_whoever_asks_for_whatever(documents):
    for number in range(MOST_PAGES + 10):
        documents.find(wanted("/"))
        keep(documents, wanted("/"), b"entry") if number == 0 else keep(
            documents, wanted(f"/{number}"), Content_Type="text/html"
        )
    assert len(documents) == MOST_PAGES
    assert documents.find(wanted("/")).body == b"entry", "what is wanted often stays"
    assert documents.find(wanted("/1")) is None

    for number in range(3 * MOST_BYTES // LARGEST_BYTES):
        keep(documents, wanted(f"/{number}"), b"x" * LARGEST_BYTES, Content_Type="text/html")
    assert documents.bytes <= MOST_BYTES
    assert keep(documents, wanted("/large"), b"x" * (LARGEST_BYTES + 1), Content_Type="text/html") is None

    for number in range(2 * MOST_VARIANTS):
        keep(documents, wanted(Accept=str(number)), Vary="Accept")
    assert (
        sum(documents.find(wanted(Accept=str(number))) is not None for number in range(100)) <= MOST_VARIANTS
    )

    document = keep(documents, wanted())
    for number in range(2 * MOST_QUERIES):
        documents.confirm(wanted(query=f"utm_source={number}"), document, CIMultiDict())
    assert len(document.fresh_until) == MOST_QUERIES

    assert keep(documents, wanted("/odd", Accept="x" * 2000), Vary="Accept", Content_Type="text/html") is None

    slow = [
        documents.incoming(
            wanted(f"/{n}"), 200, CIMultiDict({"Content-Type": "text/html"}), ends_visibly=True
        )
        for n in range(50)
    ]
    for incoming in slow:
        incoming.add(b"x" * LARGEST_BYTES)
    assert documents.incoming_bytes <= MOST_INCOMING_BYTES
    for incoming in slow:
        incoming.close(whole=True)
    assert documents.incoming_bytes == 0
    for number in range(MOST_PAGES + 10):
        documents.forget(wanted(f"/{number}"))
    documents.forget(wanted())
    assert (len(documents), documents.bytes) == (0, 0)
