"""Event → Record: the values consumers rely on, as published in one complete example a type."""

import hmac
import json
import subprocess
import sys
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from published import ROOT, SCHEMAS

from collector.event import Event, encode_params
from geoip.place import NOWHERE, Place
from kafkastore.enrichment import Policy, Source, enrich
from kafkastore.lookup_keys import lookup_keys
from kafkastore.visitor import address_of, masked, visitor_id
from kafkastore.visitor_keys import DailyKeys

TOPICS = frozenset({"clicks", "referrals", "orphans", "inapp"})
EXAMPLES = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "events.jsonl").read_text("utf-8").splitlines()
]
BATCH = Source("00000000-0000-4000-8000-000000000000", 7)
IPHONE = b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Mobile/15E148 Safari/604.1"


def berlin(address):
    assert address == "203.0.113.42", "the full address is looked up, before it is masked"
    return Place("DE", "BE", "Berlin")


def record_of(line, now_ms=1769860800160, place_of=lambda _address: NOWHERE, **policy):
    event = line if isinstance(line, Event) else Event.decode(line, TOPICS)
    (found,) = enrich([(event, BATCH)], now_ms=now_ms, place_of=place_of, policy=Policy(**policy))
    return found


def value_of(line, **how):
    return json.loads(record_of(line, **how).value)


def test_the_published_schemas_are_those_of_the_code():
    subprocess.run([sys.executable, ROOT / "bin" / "schemas", "--check"], check=True, timeout=60)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_only_ever_grows(name):
    """What was released (a copy, made at a release) still holds: every key is there, and no type got wider."""
    released = json.loads((ROOT / "tests" / "data" / "schemas" / f"{name}.json").read_text("utf-8"))
    now = SCHEMAS[name]
    assert set(released["required"]) <= set(now["required"])
    for field, about in released["properties"].items():
        for aspect in ("type", "anyOf", "items", "pattern", "enum", "const", "minimum"):
            assert now["properties"][field].get(aspect) == about.get(aspect), (field, aspect)


def click_with(user_agent=IPHONE, ip="203.0.113.42", **params):
    named = {name: value.encode() for name, value in params.items()}
    return Event(ip, 1769860800, "clicks", "/t/click", encode_params(named or {"ad": None}), user_agent)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_the_published_example_is_what_comes_out(example):
    record = record_of(example["line"].encode(), place_of=berlin)
    value, expected = json.loads(record.value), dict(example["value"])
    assert list(value) == list(expected), "every key, in the published order"
    if example["name"] == "in-app":
        expected["event_id"] = BATCH.event_id()
    assert value == expected
    assert record.topic == example["line"].split(" ")[2]
    assert record.key.decode() == (expected.get("lookup_key") or expected["visitor_id"])
    headers = dict(record.headers)
    assert headers["ce_id"].decode() == expected["event_id"]
    assert headers["ce_type"].decode() == f"onward.{expected['event_type']}"
    assert headers["ce_source"].decode() == f"/onward/{record.topic}"
    assert headers["ce_time"].decode() == expected["clicked_at"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "127.0.0.1 1769860800 clicks /t/click f=e&g=h iPhone Banana Phone",
            (
                "/t/click bot_name&country&device=smartphone&device_name=iPhone&ip=2130706433&klag=0&platform=ios"
                "&ts=1769860800 f=e&g=h"
            ),
        ),
        (
            "127.0.0.1 1769860800 inapp /t/fubar p ",
            "/t/fubar bot_name&country&device&device_name&ip=2130706433&klag=0&platform=&ts=1769860800 p",
        ),
        (
            "2001:db8::1 1769860798 inapp /t/x a=%C3%BC&b&c= iPhone",
            (
                "/t/x bot_name&country&device=smartphone&device_name=iPhone"
                "&ip=42540766411282592856903984951653826561&klag=2&platform=ios&ts=1769860798 a=%C3%BC&b&c="
            ),
        ),
        (
            "nobody 1769860800 orphans /t/orphan path=%2Fx curl/8.0",
            "/t/orphan bot_name=curl&country&device&device_name&ip&klag=0&platform=&ts=1769860800 path=%2Fx",
        ),
    ],
)
def test_the_text_of_the_original_pipeline_comes_out_byte_for_byte(line, expected):
    record = record_of(line.encode(), ip_privacy="full", bots="flag", value_format="adtekio")
    assert record.value.decode() == expected
    assert dict(record.headers)["content-type"] == b"text/plain"


def test_the_text_shows_no_more_of_an_address_or_of_who_wishes_not_to_be_tracked_than_json_does():
    line = click_with(adid="A-B", signals="gpc", reqparams="x=1", campaign="Sale", referer="a.example")
    kept, masked_one, none = (
        record_of(line, value_format="adtekio", honor_gpc=honor, ip_privacy=privacy).value.decode()
        for honor, privacy in ((True, "full"), (False, "mask"), (False, "none"))
    )
    assert "&ip&" in kept
    assert kept.endswith(" adid&campaign=Sale&referer&reqparams&signals=gpc")
    assert "&ip=3405803776&" in masked_one
    assert "adid=A-B" in masked_one
    assert "&ip&" in none
    app = Event("203.0.113.42", 1769860800, "inapp", "/t/ist", b"adid=A-B", IPHONE)
    assert b"adid=A-B" in record_of(app, value_format="adtekio").value


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.42", "203.0.113.0"),
        ("2001:db8:abcd:ef01::1", "2001:db8:abcd::"),
        ("::ffff:203.0.113.42", "203.0.113.0"),
        ("2001:DB8::1%eth0", "2001:db8::"),
    ],
)
def test_an_address_is_masked_to_its_network(address, network):
    assert masked(address_of(address)) == network


@given(st.one_of(st.ip_addresses().map(str), st.ip_addresses(v=6).map(lambda one: one.exploded), st.text()))
def test_an_address_is_read_and_masked_as_the_standard_library_does(text):
    try:
        address = ip_address(text)
    except ValueError:
        assert address_of(text) is None
        return
    address = getattr(address, "ipv4_mapped", None) or address
    assert address_of(text) == str(address).partition("%")[0]
    network = ip_network(f"{address_of(text)}/{24 if address.version == 4 else 48}", strict=False)
    assert masked(address_of(text)) == str(network.network_address)


@pytest.mark.parametrize(
    "address", ["::", "::1", "::1.2.3.4", "::ffff:1.2.3.4", "0:0:5::", "1:0:0:2:0:0:0:3"]
)
def test_an_address_of_many_zeros_is_written_as_everywhere(address):
    expected = "1.2.3.4" if "ffff" in address else str(ip_address(address))
    assert address_of(address) == expected


@pytest.mark.parametrize(
    ("topic", "path"), [("clicks", "/t/click"), ("referrals", "/t/referral"), ("orphans", "/t/orphan")]
)
def test_a_line_cannot_tell_what_is_found_out(topic, path):
    names = {name for schema in SCHEMAS.values() for name in schema["properties"]}
    line = Event(
        "203.0.113.42", 1769860800, topic, path, encode_params(dict.fromkeys(names, b"forged")), IPHONE
    )
    record = record_of(line, place_of=berlin)
    found = {name for name, value in json.loads(record.value).items() if value == "forged"}
    ours = {"slug", "trigger", "ad", "adgroup", "adid", "attr_window_from", "attr_window_till", "campaign"}
    ours |= {"click", "created_at", "idfa_comb", "lookup_key", "network", "partner_data", "redirect_url"}
    ours |= {"reqparams", "referer", "domain", "registrable_domain", "host", "path", "reason"}
    ours |= {f"utm_{word}" for word in ("source", "medium", "campaign", "term", "content")}
    assert found <= ours


def test_the_visitor_id_is_the_published_one():
    agent = b"Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0"
    expected = "efd209f7f156faf2244d23d13b16eef64f738b973395f87063f9da1b7cd4552e"
    assert visitor_id("203.0.113.42", agent, 1769860800) == expected
    assert visitor_id("203.0.113.42", agent, 1769903999) == expected, "the same UTC day"
    assert visitor_id("203.0.113.42", agent, 1769904000) != expected
    line = b"203.0.113.42|Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0|2026-01-31"
    keyed = hmac.new(b"s3cret", line, "sha256").hexdigest()
    assert visitor_id("203.0.113.42", agent, 1769860800, b"s3cret") == keyed
    event = click_with(agent)
    assert value_of(event)["visitor_id"] == expected
    assert value_of(event, visitor_key=lambda _seconds: b"s3cret")["visitor_id"] == keyed


async def test_daily_keys_are_shared_by_all_kafkastores_and_gone_after_two_days(redis, monkeypatch):
    one, other = DailyKeys(redis), DailyKeys(redis)
    today = int(time.time())
    yesterday, long_ago, never = today - 86_400, today - 100 * 86_400, 9_999_999_999
    for keys in (one, other):
        await keys.fetch([today, today + 1, yesterday, long_ago, never])
    assert one.of(today) == other.of(today) != one.of(yesterday) == other.of(yesterday)
    assert one.of(long_ago) == one.of(never) != other.of(never), "what is made up gets no key in Redis"
    names = await redis.keys("{click_queue}:visitor_key:*")
    assert len(names) == len({second // 86_400 for second in (today, today + 1, yesterday)})
    assert {0 < await redis.ttl(name) <= 48 * 3600 for name in names} == {True}
    before = one.of(today)
    await redis.delete(*names)
    monkeypatch.setattr(time, "time", lambda: today + 48 * 3600 + 10)
    await one.fetch([today])
    assert one.of(today) != before, "an event later than its key gets another one"


def test_the_lookup_keys_of_an_install_are_the_published_ones():
    assert lookup_keys("ECC27E57-1605-2714-CAFE-13DC6DFB742F", "188.103.107.190", "ios") == [
        "bb0ca0283abd536a7ae2941c6cde29dd",
        "95d2e39592433fd4bf10a72f5573f8dc",
        "35ce2f8bf63cfda46551a68097e2badc",
        "35382295a43b6abe8337fa2da486baa7",
    ]


@pytest.mark.parametrize("ip", ["nobody", "0.0.0.0", "", "999.1.1.1", "\ufffd"])
def test_what_is_no_address_is_null_and_the_event_goes_on(ip):
    value = value_of(structs.replace(click_with(event_id="019c13ec-9e7b-7a01-8000-000000000001"), ip=ip))
    assert {name: value[name] for name in ("ip", "visitor_id", "country", "region", "city")} == dict.fromkeys(
        ("ip", "visitor_id", "country", "region", "city")
    )
    assert value["event_id"] == "019c13ec-9e7b-7a01-8000-000000000001"


def test_a_line_without_our_fields_gets_an_id_that_every_delivery_repeats_and_whole_seconds():
    line = b"127.0.0.1 1769860800 clicks /t/click f=e&g=h iPhone Banana Phone"
    first, second = value_of(line), value_of(line)
    assert first == second
    assert first["event_id"] == BATCH.event_id()
    assert first["clicked_at"] == "2026-01-31T12:00:00.000Z"
    assert first["link_id"] is None


def test_our_names_in_an_apps_event_are_the_apps_own():
    value = value_of(
        b"127.0.0.1 1769860800 inapp /t/x event_id=forged&clicked_at=2020-01-01T00%3A00%3A00Z&signals=head x"
    )
    assert value["event_id"] == BATCH.event_id()
    assert value["clicked_at"] == "2026-01-31T12:00:00.000Z"
    assert value["params"]["event_id"] == "forged"
    assert value["bot_reason"] != "head"


def test_an_apps_event_without_a_query_has_no_params():
    assert value_of(b"127.0.0.1 1769860800 inapp /t/x p ")["params"] == {}


def test_bots_go_to_their_own_topic_are_marked_or_are_counted_only():
    googlebot = b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
    assert record_of(click_with(googlebot)).topic == "bots"
    assert record_of(click_with(googlebot), bots="flag").topic == "clicks"
    assert record_of(click_with(googlebot), bots="drop") is None
    value = value_of(click_with(googlebot), bots="flag")
    assert (value["bot_name"], value["bot_class"]) == ("Googlebot", "search")
    assert record_of(click_with()).topic == "clicks"


def test_a_head_request_and_a_prefetch_are_no_persons_click():
    for signals, bot_class in (("head", "probe"), ("prefetch", "prefetch"), ("headless", "headless")):
        record = record_of(click_with(signals=signals))
        assert (record.topic, json.loads(record.value)["bot_class"]) == ("bots", bot_class)


def test_a_private_prefetch_proxy_is_no_place():
    value = value_of(
        click_with(signals="prefetch,anonymous_ip"), place_of=lambda _address: Place("US", None, None)
    )
    assert value["country"] is None


def test_who_asks_not_to_be_tracked_leaves_nothing_that_identifies():
    line = EXAMPLES[0]["line"].replace("&slug=", "&signals=gpc%2Cdnt&slug=").encode()
    record = record_of(line, place_of=berlin)
    value = json.loads(record.value)
    nulls = ("ip", "visitor_id", "adid", "idfa_comb", "lookup_key", "referer", "params", "reqparams", "click")
    assert {name: value[name] for name in nulls} == dict.fromkeys(nulls)
    assert (value["link_id"], value["country"]) == (46, "DE"), "counted all the same"
    assert record.key.decode() == value["event_id"]
    assert value_of(line, place_of=berlin, honor_gpc=False)["ip"] == "203.0.113.0"
    assert value_of(line, place_of=berlin, honor_gpc=False, honor_dnt=True)["ip"] is None


def test_an_address_can_be_kept_whole_or_not_at_all():
    assert value_of(click_with(), ip_privacy="full")["ip"] == "203.0.113.42"
    nothing = value_of(click_with(lookup_key="of an address"), ip_privacy="none")
    assert [nothing[name] for name in ("ip", "visitor_id", "lookup_key")] == [None, None, None]
    key_of_a_device = value_of(click_with(lookup_key="k", idfa_comb="i"), ip_privacy="none")["lookup_key"]
    assert key_of_a_device == "k"


def test_a_time_to_come_is_kept_in_the_value_and_not_in_the_records_own():
    line = b"203.0.113.42 9999999999 clicks /t/click p iPhone"
    assert record_of(line, now_ms=1769860800160).timestamp_ms == 1769860800160
    assert value_of(line)["clicked_at"].startswith("2286-11-20T17:46:39")


def test_bytes_that_are_not_utf_8_become_the_replacement_character_only_here():
    line = b"127.0.0.1 1769860800 clicks /t/click campaign=%FF&reqparams=x%3D%25FF \xff"
    value = value_of(line)
    assert (value["campaign"], value["params"], value["user_agent"]) == ("\ufffd", {"x": "\ufffd"}, "\ufffd")


@given(
    params=st.binary(max_size=80), user_agent=st.binary(max_size=80), path=st.sampled_from(["/t/click", "/x"])
)
def test_whatever_the_fields_hold_the_event_goes_on(params, user_agent, path):
    for topic in sorted(TOPICS):
        event = Event("203.0.113.42", 1769860800, topic, path, params, user_agent)
        value = json.loads(record_of(event).value)
        assert value["schema"].endswith("/1")
        assert len(value["event_id"]) == 36
