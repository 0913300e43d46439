"""The event line is a public interface: byte for byte as others write and read it, and total over what they push."""

from operator import itemgetter
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from collector.click import Click, Orphan, Visit
from collector.event import (
    Event,
    MalformedEventError,
    decode_params,
    decode_query,
    decode_texts,
    encode_params,
    put_last_texts,
)
from collector.platform import platform_of
from links.link import Link, link_of

DATA = Path(__file__).parent / "data"
TOPICS = frozenset({"clicks", "referrals", "orphans", "inapp"})
NOT_IN_REQPARAMS = {b"adid", b"idfa", b"gadid", b"click", b"idfa_md5", b"idfa_sha1", b"partner_data"}
EXTRAS = {b"clicked_at", b"event_id", b"referer", b"signals", b"slug", b"trigger"}


def cases(name):
    return yaml.safe_load((DATA / name).read_text(encoding="utf-8"))


def visit_of(at_ms=1465287056000, ip="127.0.0.1", user_agent="iPhone", query="", event_id="id", referer=None):
    return Visit(event_id, at_ms, ip, user_agent.encode(), decode_query(query.encode()), referer)


def click_of(link, visit, redirect_url=None, zone="UTC"):
    return Click(link_of(link), visit, platform_of(visit.user_agent), redirect_url, ZoneInfo(zone))


@pytest.mark.parametrize("case", cases("clicks.yml"), ids=lambda case: case["name"])
def test_a_click_becomes_the_golden_line(case):
    visit = visit_of(**case["visit"])
    event = click_of(case["link"], visit, case["redirect_url"], case["zone"]).event()
    if not case["ours"]:
        kept = [pair for pair in event.params.split(b"&") if pair.partition(b"=")[0] not in EXTRAS]
        event = structs.replace(event, params=b"&".join(kept))
    assert event.encode() == case["line"].encode()
    assert Event.decode(event.encode(), TOPICS) == event


@pytest.mark.parametrize("case", cases("click_params.yml"), ids=lambda case: case["query"] or "no query")
def test_the_request_decides_the_params(case):
    link = {"id": 1, "utm_source": "of-link"}
    params = decode_params(click_of(link, visit_of(query=case.pop("query"))).event().params)
    assert {name: params[name.encode()] for name in case} == {
        name: None if value is None else str(value).encode() for name, value in case.items()
    }


def test_the_sixteen_params_are_always_there_in_byte_order():
    event = click_of({"id": 1}, visit_of()).event()
    names = [pair.partition(b"=")[0].decode() for pair in event.params.split(b"&")]
    sixteen = [
        *(
            "ad",
            "adgroup",
            "adid",
            "attr_window_from",
            "attr_window_till",
            "campaign",
            "campaign_link_id",
            "click",
        ),
        *(
            "created_at",
            "idfa_comb",
            "lookup_key",
            "network",
            "partner_data",
            "redirect_url",
            "reqparams",
            "user_id",
        ),
    ]
    assert [name for name in names if name in sixteen] == sixteen
    assert names == sorted(names)


def test_an_attribution_window_is_counted_from_the_click_across_a_change_of_clocks():
    link = {"id": 1, "attribution_window_fingerprint": 60}
    before_summer_time = visit_of(at_ms=1774744200000)  # 2026-03-29T01:30:00+01:00
    params = decode_params(click_of(link, before_summer_time, zone="Europe/Berlin").event().params)
    assert params[b"attr_window_from"] == b"2026-03-29T01:30:00+01:00"
    assert params[b"attr_window_till"] == b"2026-03-29T03:30:00+02:00"


def test_an_orphan_says_why_and_leaves_out_what_is_empty():
    visit = structs.replace(visit_of(at_ms=1769860800123, query="x=1"), event_id="e", signals="head")
    event = Orphan(visit, "/click/4711/go", "unknown", None).event()
    assert event.encode() == (
        b"127.0.0.1 1769860800 orphans /t/orphan clicked_at=2026-01-31T12%3A00%3A00.123Z&event_id=e"
        b"&path=%2Fclick%2F4711%2Fgo&reason=unknown&reqparams=x%3D1&signals=head iPhone"
    )


@pytest.mark.parametrize("case", cases("malformed_lines.yml"), ids=lambda case: repr(case["line"])[:40])
def test_a_line_that_is_no_event_says_why(case):
    line = case["line"] if isinstance(case["line"], bytes) else case["line"].encode()
    with pytest.raises(MalformedEventError) as error:
        Event.decode(line, TOPICS)
    assert (error.value.reason, error.value.topic) == (case["reason"], case.get("topic"))


def test_a_user_agent_may_be_missing_empty_or_hold_anything():
    head = b"127.0.0.1 1465287056 clicks /t/click p"
    assert Event.decode(head, TOPICS).user_agent == b""
    assert Event.decode(head + b" ", TOPICS).user_agent == b""
    assert Event.decode(head + b" a  b \xff\0\r\n", TOPICS).user_agent == b"a  b \xff\0\r\n"


def test_field_one_that_is_no_address_is_still_an_event():
    assert Event.decode(b"nobody 1465287056 clicks /t/click p x", TOPICS).ip == "nobody"


@given(st.binary(max_size=200))
def test_decoding_is_total(line):
    for candidate in (line, b"127.0.0.1 1 clicks /t/click " + line):
        try:
            event = Event.decode(candidate, TOPICS)
        except MalformedEventError as error:
            assert error.reason
        else:
            assert event.topic in TOPICS


@given(user_agent=st.binary(max_size=100), query=st.binary(max_size=100), referer=st.text(max_size=50))
def test_no_byte_of_a_request_forges_a_field_or_a_second_line(user_agent, query, referer):
    visit = Visit("id", 1465287056000, "127.0.0.1", user_agent, decode_query(query), referer or None)
    line = Click(link_of({"id": 1}), visit, "", None).event().encode()
    assert not set(line) & set(b"\r\n\0\t")
    event = Event.decode(line, TOPICS)
    assert event.encode() == line
    assert decode_params(event.params)[b"campaign_link_id"] == b"1"


values = st.one_of(
    st.none(), st.binary(max_size=20), st.lists(st.one_of(st.none(), st.binary(max_size=5)), min_size=2)
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=10), values))
def test_params_are_read_back_as_they_were_written(params):
    assert decode_params(encode_params(params)) == {name.encode(): value for name, value in params.items()}


def plainly_encoded(pairs):
    return "&".join(
        quote_from_bytes(name, safe="") + ("" if value is None else f"={quote_from_bytes(value, safe='')}")
        for name, value in pairs
    ).encode()


def plainly_decoded(query):
    parts = [part.partition("=") for part in query.decode("latin-1").replace("+", " ").split("&") if part]
    return [
        (
            unquote_to_bytes(name.encode("latin-1")),
            unquote_to_bytes(value.encode("latin-1")) if equals else None,
        )
        for name, equals, value in parts
    ]


texts = st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=10))
names = st.one_of(
    st.sampled_from([b"click", b"cb", b"qr", b"utm_term", b"utm_source"]),
    st.binary(max_size=4),
)
queries = st.one_of(
    st.binary(max_size=60),
    st.lists(st.tuples(names, st.one_of(st.none(), st.binary(max_size=8))), max_size=6).map(plainly_encoded),
)


@given(queries)
def test_a_query_is_decoded_as_urllib_would(query):
    assert decode_query(query) == plainly_decoded(query)


@given(
    campaign=texts,
    ad=texts,
    utm=texts,
    target=texts,
    slug=st.one_of(st.none(), st.just("a-b_c")),
    user_id=st.one_of(st.none(), st.integers(-5, 5)),
    referer=st.one_of(
        st.none(), st.binary(max_size=10).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
    ),
    signals=st.sampled_from(["", "head", "gpc,dnt"]),
    query=queries,
)
def test_a_click_is_encoded_as_if_a_dict_were_sorted_and_quoted(
    campaign, ad, utm, target, slug, user_id, referer, signals, query
):
    link = Link(id=46, campaign=campaign, ad=ad, slug=slug, user_id=user_id, utm_source=utm, utm_medium=utm)
    visit = structs.replace(visit_of(referer=referer), params=decode_query(query), signals=signals)
    params = Click(link, visit, "ios", target, ZoneInfo("UTC")).event().params
    known, last = dict(plainly_decoded(params)), dict(visit.params)
    assert params == plainly_encoded(sorted(known.items()))
    others = [pair for pair in visit.params if pair[0] not in NOT_IN_REQPARAMS]
    expected = {
        b"campaign": campaign,
        b"ad": ad,
        b"redirect_url": target,
        b"slug": slug,
        b"user_id": None if user_id is None else str(user_id),
        b"referer": referer or None,
        b"signals": signals or None,
        b"click": last.get(b"click"),
        b"partner_data": last.get(b"partner_data")
        if last.get(b"partner_data") is not None
        else last.get(b"cb"),
        b"utm_medium": utm or last.get(b"utm_medium") or None,
        b"utm_source": utm or last.get(b"utm_source") or None,
        b"utm_term": last.get(b"utm_term") or None,
        b"reqparams": plainly_encoded(sorted(others, key=itemgetter(0))),
    }
    assert {name: known.get(name) for name in expected} == {
        name: value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        for name, value in expected.items()
    }


PIECES = st.lists(
    st.sampled_from(
        [
            *("%3A", "%253A", "%2", "%3D", "%26", "%C3%BC", "%FF", "%2F", "%20", "%c3", "%0A"),
            *(
                "%\n",
                "%\r\n",
                "=\n",
                " \n",
                "==",
                "%%",
                "=3D",
            ),  # what quoted-printable has rules of its own for
            *"ab=&+% é;[_\t\r\n\0\x7f",
        ],
    )
)


@given(PIECES.map("".join))
def test_text_is_decoded_as_bytes_are(query):
    def text(value):
        return None if value is None else value.decode("utf-8", "replace")

    expected = {
        text(name): list(map(text, value)) if isinstance(value, list) else text(value)
        for name, value in decode_params(query.encode()).items()
    }
    last = {name: value[-1] if isinstance(value, list) else value for name, value in expected.items()}
    assert decode_texts(query) == expected
    found = {}
    put_last_texts(query.encode(), found)
    assert {name: value for name, value in found.items() if name} == {
        name: value for name, value in last.items() if name
    }
