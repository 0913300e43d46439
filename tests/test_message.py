"""The original's text value, both ways: what is written is read back, and what is read is whole or refused."""

import json
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from collector.event import Event, decode_params, encode_params
from geoip.place import NOWHERE
from kafkastore.enrichment import Policy, Source, enrich
from kafkastore.message import MalformedMessageError, Message, decode_cgi

DATA = Path(__file__).parent / "data"
ORIGINAL = [
    (
        "127.0.0.1 1769860800 clicks /t/click f=e&g=h iPhone Banana Phone",
        "bot_name&country&device=smartphone&device_name=iPhone&ip=2130706433&klag=0&platform=ios&ts=1769860800",
        ("/t/click", "f=e&g=h", {b"f": b"e", b"g": b"h"}),
    ),
    (
        "127.0.0.1 1769860800 example /t/fubar p ",
        "bot_name&country&device&device_name&ip=2130706433&klag=0&platform=&ts=1769860800",
        ("/t/fubar", "p", {}),
    ),
]

texts = st.none() | st.text(st.characters(codec="utf-8"))
messages = st.builds(
    Message,
    path=st.text(st.characters(codec="utf-8", exclude_characters=" ")).map("/".__add__),
    bot_name=texts,
    country=texts,
    device=texts,
    device_name=texts,
    ip=st.none() | st.ip_addresses(v=4).map(str) | st.integers(2**32, 2**128 - 1).map(ip_address).map(str),
    klag=st.none() | st.integers(0, 10**10 - 1),
    platform=texts,
    ts=st.integers(0, 10**10 - 1),
    query=st.binary(min_size=1).map(lambda raw: raw.replace(b" ", b"_")),
)
values = st.none() | st.binary()
params = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1), values | st.lists(values, min_size=2)
)


@given(messages)
def test_a_message_that_is_written_is_read_back(message):
    assert Message.decode(message.encode()) == message


@given(params)
def test_params_that_are_written_are_read_back_by_the_rules_of_cgi(given_params):
    assert decode_cgi(encode_params(given_params)) == {
        name.encode(): value for name, value in given_params.items()
    }


@given(st.binary() | st.binary().map(lambda raw: b"/t/click ts=1 " + raw))
def test_whatever_is_read_is_a_message_or_malformed(value):
    try:
        message = Message.decode(value)
    except MalformedMessageError:
        return
    assert Message.decode(message.encode()) == message
    assert isinstance(message.params, dict)


@pytest.mark.parametrize("case", yaml.safe_load((DATA / "cgi_params.yml").read_text("utf-8")), ids=str)
def test_params_are_read_by_the_rules_of_cgi(case):
    found = decode_cgi(case["query"].encode())
    assert {name.decode(): _text(value) for name, value in found.items()} == case["params"]


def _text(value):
    if isinstance(value, list):
        return [_text(one) for one in value]
    return None if value is None else value.decode()


@pytest.mark.parametrize(("line", "meta", "rest"), ORIGINAL)
def test_the_originals_own_messages_are_what_the_kafkastore_writes_and_what_is_read(line, meta, rest):
    path, query, params = rest
    value = f"{path} {meta} {query}".encode()
    assert written(line.encode()) == value
    message = Message.decode(value)
    assert (message.path, message.query, message.params) == (path, query.encode(), params)
    assert (message.ip, message.ts, message.klag) == ("127.0.0.1", 1769860800, 0)


@pytest.mark.parametrize("number", range(4))
def test_every_event_goes_through_the_text_and_comes_out_as_it_went_in(number):
    example = json.loads((DATA / "events.jsonl").read_text("utf-8").splitlines()[number])
    event = Event.decode(example["line"].encode(), {"clicks", "referrals", "orphans", "inapp"})
    message = Message.decode(written(example["line"].encode()))
    assert (message.path, message.ts, message.ip) == (event.path, event.at, event.ip)
    assert (message.platform, message.device, message.device_name) == ("ios", "smartphone", "iPhone")
    assert (message.query, message.params) == (event.params, decode_params(event.params))


def written(line):
    policy = Policy(bots="flag", ip_privacy="full", value_format="adtekio")
    event = Event.decode(line, {"clicks", "referrals", "orphans", "inapp", "example"})
    source = Source("00000000-0000-0000-0000-000000000000", 0)
    (record,) = enrich([(event, source)], now_ms=event.at * 1000, place_of=lambda _: NOWHERE, policy=policy)
    return record.value


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"/t/click ts=1",
        b"/t/click ts=1 ",
        b"t/click ts=1 a",
        b"/t/click ts=1 a b",
        b"/t/click ts a",
        b"/t/click ts=12345678901 a",
        b"/t/click ts=-1 a",
        b"/t/click klag=1 a",
        b"/\xff ts=1 a",
        b'{"schema": "click/1"}',
    ],
)
def test_what_is_no_message_is_refused(value):
    with pytest.raises(MalformedMessageError):
        Message.decode(value)


@pytest.mark.parametrize("ip", ["", "x", "-1", str(2**128), "1e9", "٣"])
def test_an_address_that_is_none_is_none(ip):
    assert Message.decode(f"/t/ist ip={ip}&ts=1 p".encode()).ip is None
