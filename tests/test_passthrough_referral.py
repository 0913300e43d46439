"""Which domain sent a visitor, what of it is written down, and which requests are page views."""

from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from collector.click import Visit
from collector.event import Event, decode_params
from collector.referral import (
    NOWHERE,
    Referral,
    Referrer,
    arrival_of,
    host_name,
    is_page_view,
    referrer_of,
)

DATA = Path(__file__).parent / "data"
REFERRERS = yaml.safe_load((DATA / "referrers.yml").read_text("utf-8"))
PAGE_VIEWS = yaml.safe_load((DATA / "page_views.yml").read_text("utf-8"))
IPHONE = (
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    b"Version/18.1 Mobile/15E148 Safari/604.1"
)
GOLDEN = (
    b"203.0.113.42 1769860800 referrals /t/referral clicked_at=2026-01-31T12%3A00%3A00.123Z&domain=news.example.org"
    b"&event_id=019c13ec-9e7b-7a01-8000-000000000002&host=www.example.com&path=%2Frecipes"
    b"&registrable_domain=example.org&utm_source=newsletter " + IPHONE
)


def visit(**more):
    return Visit("019c13ec-9e7b-7a01-8000-000000000002", 1769860800123, "203.0.113.42", IPHONE, **more)


def test_a_referral_is_the_line_that_the_contract_shows():
    referrer = referrer_of("https://news.example.org/a?b")
    params = [(b"utm_source", b"newsletter"), (b"x", b"y"), (b"utm_medium", b""), (b"utm_term", None)]
    referral = Referral(visit(params=params), referrer, "www.example.com", "/recipes")
    assert referral.event().encode() == GOLDEN


def test_params_are_in_byte_order():
    params = [(f"utm_{name}".encode(), b"x") for name in ("source", "medium", "campaign", "term", "content")]
    referral = Referral(visit(params=params, signals="dnt"), Referrer("a.b.c", "b.c"), "d.e", "/")
    names = [pair.partition(b"=")[0] for pair in referral.event().params.split(b"&")]
    assert names == sorted(names)
    assert len(names) == 12


def test_a_referral_from_nowhere_names_no_domain():
    line = Referral(visit(signals="prefetch"), NOWHERE, None, "/").event()
    assert decode_params(line.params) == {
        b"clicked_at": b"2026-01-31T12:00:00.123Z",
        b"event_id": b"019c13ec-9e7b-7a01-8000-000000000002",
        b"path": b"/",
        b"signals": b"prefetch",
    }


@pytest.mark.parametrize("case", REFERRERS, ids=lambda case: repr(case["referer"]))
def test_of_a_referer_the_host_is_known_and_nothing_else(case):
    domain = case.get("domain")
    expected = Referrer(domain, case.get("registrable")) if domain else None
    assert referrer_of(case["referer"]) == expected


SECRET = st.text(st.sampled_from("XYZ%!$&'()*+,;=~ üß\n\t\0"), min_size=1).map("Secret{}".format)


@given(
    host=st.sampled_from(
        ["news.example.org", "Bücher.example", "[::1]", "com.slack", "10.0.0.1", "bad host", ""]
    ),
    scheme=st.sampled_from(["http", "https", "HTTPS", "android-app", "javascript", "about"]),
    user=st.none() | SECRET,
    password=st.none() | SECRET,
    port=st.sampled_from(["", ":", ":8443", ":Secret", ":99999"]),
    path=st.lists(SECRET),
    query=st.none() | SECRET,
    fragment=st.none() | SECRET,
    encoded=st.booleans(),
)
def test_no_part_of_a_referring_url_but_its_host_is_in_the_line(
    host, scheme, user, password, port, path, query, fragment, encoded
):
    as_sent = quote if encoded else str
    login = (
        "" if user is None else as_sent(user) + ("" if password is None else f":{as_sent(password)}") + "@"
    )
    url = f"{scheme}://{login}{host}{port}" + "".join(f"/{as_sent(part)}" for part in path)
    url += "" if query is None else f"?{as_sent(query)}"
    url += "" if fragment is None else f"#{as_sent(fragment)}"
    arrival = arrival_of({"Referer": url}, "www.example.com", (), direct=True)
    line = Referral(visit(referer=url), arrival, "www.example.com", "/").event().encode()
    assert b"secret" not in line.lower()
    assert b"8443" not in line
    assert (b"news.example.org" in line) == (
        host == "news.example.org"
        and scheme not in ("javascript", "about")
        and port not in (":Secret", ":99999")
    )


@given(st.text() | st.text().map("https://".__add__), st.text(), st.binary())
def test_any_referer_and_any_path_make_one_whole_event_or_none(referer, path, utm):
    arrival = arrival_of({"Referer": referer}, "www.example.com", (), direct=True)
    line = Referral(visit(params=[(b"utm_source", utm)]), arrival, None, f"/{path}").event().encode()
    event = Event.decode(line, {"referrals"})
    assert event.topic == "referrals"
    assert decode_params(event.params)[b"path"] == f"/{path}".encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Referer": "https://www.example.com/other"}, None),
        ({"Referer": "https://www.example.com:8443/other"}, None),
        ({"Referer": "https://shop.example.com/"}, None),
        ({"Referer": "https://blog.example.com/"}, Referrer("blog.example.com", "example.com")),
        ({}, None),
        ({"Referer": "about:blank"}, None),
    ],
)
def test_our_own_hosts_send_nobody(headers, expected):
    own = frozenset({"shop.example.com"})
    assert arrival_of(headers, "www.example.com", own, direct=False) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, NOWHERE),
        ({"Referer": "about:blank"}, NOWHERE),
        ({"Sec-Fetch-Site": "none"}, NOWHERE),
        ({"Sec-Fetch-Site": "same-origin"}, None),
        ({"Referer": "https://www.example.com/other"}, None),
    ],
)
def test_with_direct_a_visit_from_nowhere_counts_but_one_from_our_own_pages_does_not(headers, expected):
    assert arrival_of(headers, "www.example.com", (), direct=True) == expected


@pytest.mark.parametrize(
    ("named", "host"),
    [
        ("Bücher.example:80", "xn--bcher-kva.example"),
        ("WWW.Example.com.", "www.example.com"),
        ("::1", "::1"),
        ("[::1]:80", "::1"),
        ("a/b", None),
        ("x@y", None),
        ("", None),
        ("a b", None),
    ],
)
def test_hosts_are_named_as_referrers_name_them(named, host):
    assert host_name(named) == host


@pytest.mark.parametrize("case", PAGE_VIEWS, ids=str)
def test_which_requests_are_page_views(case):
    method, path, headers = case.get("method", "GET"), case.get("path", "/"), case.get("headers", {})
    assert is_page_view(method, path, headers, case.get("status"), case.get("type", "")) == case["is"]
