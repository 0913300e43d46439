"""Which click an install finds: by the order of its keys, inside the window, the last one; once."""

import asyncio
import json
import time
import uuid
from datetime import timedelta

import pytest
from attribution_world import (
    ADDRESS,
    CLICKS,
    INAPP,
    MINUTE,
    NOON,
    Writer,
    attributed,
    click,
    click_message,
    count,
    install,
    install_message,
    keys_of,
    records_of,
)
from consumers_world import query
from hypothesis import given
from hypothesis import strategies as st

from consumers.attribution import Attribution
from consumers.attribution_events import UnreadableError, click_of, id_of_text, install_of
from consumers.mac import mac_id
from consumers.progress import Progress
from consumers.sink import Batch, MovedError, Span
from kafkastore.lookup_keys import lookup_keys
from kafkastore.settings import KafkastoreSettings
from process.settings import read_settings

ADID = "ECC27E57-1605-2714-CAFE-13DC6DFB742F"
OTHER = "0CC27E57-1605-2714-CAFE-13DC6DFB742F"
BY_ADID, BY_SHA1, BY_MD5, BY_ADDRESS = keys_of(ADID)
WAIT_SECONDS = 3600


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/onward.db"
    return await new_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def postgres(postgres_url):
    return await new_database(postgres_url)


async def new_database(postgres_url):
    name = f"attribution_{time.time_ns()}"
    await query(postgres_url, f"CREATE DATABASE {name}")
    return postgres_url.rpartition("/")[0] + f"/{name}"


async def opened(database_url, wait_seconds=WAIT_SECONDS):
    """Give a sink that publishes nothing: it does not read the first partition."""
    kafka = read_settings(KafkastoreSettings, {"KAFKA_URL": "kafka://127.0.0.1:1"})
    sink = Attribution(database_url, kafka, Progress("attribution"), wait_seconds=wait_seconds)
    await sink.positions("cluster", {CLICKS: 0, INAPP: 0})
    return sink


@pytest.fixture
async def sink(database_url):
    sink = await opened(database_url)
    yield sink
    await sink.close()


@pytest.fixture
def writer(sink):
    return Writer(sink)


WINDOW = (  # minutes of the window, when the install came, whether it finds the click
    (60, timedelta(0), True),
    (60, timedelta(seconds=-1), False),
    (60, 60 * MINUTE, True),
    (60, 60 * MINUTE + timedelta(seconds=1), False),
    (0, timedelta(0), True),
    (0, timedelta(seconds=1), False),
    (None, timedelta(0), False),
    (None, MINUTE, False),
)


@pytest.mark.parametrize("install_first", [False, True])
async def test_an_install_finds_a_click_inside_its_window_with_both_ends_and_none_without_a_window(
    writer, database_url, install_first
):
    wanted = {}
    clicks, installs = [], []
    for number, (window, after, finds) in enumerate(WINDOW):
        adid = f"{number:08x}-0000-4000-8000-000000000000"
        clicks.append(click(keys_of(adid)[0], NOON + timedelta(milliseconds=700), window))
        installs.append(install(adid, NOON + after))
        if finds:
            wanted[installs[-1]["event_id"]] = (clicks[-1]["event_id"], "adid")
    batches = [{"clicks": clicks}, {"inapp": installs}]
    for batch in reversed(batches) if install_first else batches:
        await writer.write(**batch)
    assert await attributed(database_url) == wanted


@pytest.mark.parametrize("install_first", [False, True])
@pytest.mark.parametrize(
    ("there", "found", "matched_by"),
    [
        ((BY_ADID, BY_SHA1, BY_MD5, BY_ADDRESS), 0, "adid"),
        ((BY_ADDRESS, BY_MD5, BY_SHA1), 2, "adid_sha1"),
        ((BY_MD5, BY_ADDRESS), 0, "adid_md5"),
        ((BY_ADDRESS,), 0, "fingerprint"),
        ((keys_of(OTHER)[0], keys_of(None, "203.0.113.43")[0]), None, None),
    ],
)
async def test_the_first_of_the_keys_that_has_a_click_decides_however_new_the_others(
    writer, database_url, there, found, matched_by, install_first
):
    clicks = [click(key, NOON + number * MINUTE / 10) for number, key in enumerate(there)]
    found_it = install(ADID)
    batches = [{"inapp": [found_it]}, {"clicks": clicks}]
    for batch in batches if install_first else reversed(batches):
        await writer.write(**batch)
    wanted = {found_it["event_id"]: (clicks[found]["event_id"], matched_by)} if matched_by else {}
    assert await attributed(database_url) == wanted


async def test_of_several_clicks_with_a_key_the_last_before_the_install_wins(writer, database_url):
    early, late, later = (click(BY_ADID, NOON + minutes * MINUTE) for minutes in (0, 2, 4))
    found_it = install(ADID, NOON + 3 * MINUTE)
    await writer.write(clicks=[late, early, later])
    await writer.write(inapp=[found_it])
    assert await attributed(database_url) == {found_it["event_id"]: (late["event_id"], "adid")}


async def test_an_id_of_google_counts_where_there_is_no_other_and_no_address_is_no_fingerprint(
    writer, database_url
):
    by_google = install(None, gadid=OTHER, lookup_keys=keys_of(OTHER))
    nobodys = install(None, address="0.0.0.0")
    wished_so = install(None, lookup_keys=None, lookup_key=None)
    await writer.write(
        clicks=[click(keys_of(OTHER)[0]), click(nobodys["lookup_key"]), click(None)],
        inapp=[by_google, nobodys, wished_so],
    )
    found = await attributed(database_url)
    assert {install: by for install, (_, by) in found.items()} == {by_google["event_id"]: "adid"}


async def test_a_bots_click_is_found_by_nobody(writer, database_url):
    await writer.write(
        clicks=[
            click(BY_ADID, bot_class="tool"),
            click_message(BY_MD5).replace(b"bot_name&", b"bot_name=x&"),
        ],
        inapp=[install(ADID, bot_class="tool")],
    )
    assert await attributed(database_url) == {}


async def test_an_install_is_attributed_once_however_often_it_and_its_click_come(writer, database_url):
    found_it, first, second = install(ADID), click(BY_ADID), click(BY_ADID, NOON + MINUTE / 2)
    await writer.write(clicks=[first, first], inapp=[found_it, found_it])
    await writer.write(clicks=[second], inapp=[found_it])
    await writer.write(clicks=[first], inapp=[found_it])
    assert await attributed(database_url) == {found_it["event_id"]: (first["event_id"], "adid")}
    assert await count(database_url, "attribution_outbox") == 1
    assert await count(database_url, "attribution_installs") == 0
    assert await count(database_url, "attribution_install_keys") == 0


async def test_people_behind_one_address_each_find_its_last_click(writer, database_url):
    installs = [install(None) for _ in range(250)]
    await writer.write(inapp=installs)
    shared = click(BY_ADDRESS)
    await writer.write(clicks=[shared])
    assert await attributed(database_url) == {
        one["event_id"]: (shared["event_id"], "fingerprint") for one in installs
    }


async def test_the_row_says_what_the_click_and_the_install_say(writer, database_url):
    found_it = install(ADID, country="DE")
    clicked = click(BY_ADID, network="7games", campaign="Winter\0Sale", link_id=46, user_id=9)
    await writer.write(clicks=[clicked], inapp=[found_it])
    row = await query(
        database_url,
        "SELECT link_id, user_id, campaign, network, country, platform, event_id FROM attributions",
    )
    event_id = uuid.uuid5(uuid.UUID(found_it["event_id"]), clicked["event_id"])
    assert [(*row[0][:-1], str(row[0][-1]))] == [
        (46, 9, "Winter\ufffdSale", "7games", "DE", "ios", str(event_id))
    ]


async def test_text_finds_text_and_json_finds_text(writer, database_url):
    await writer.write(
        clicks=[click_message(BY_SHA1), click_message(keys_of(OTHER)[0])],
        inapp=[install_message(ADID), install(OTHER), install_message(None, ip="203.0.113.99")],
    )
    found = await attributed(database_url)
    assert sorted(by for _, by in found.values()) == ["adid", "adid_sha1"]
    by_address = click_message(keys_of(None, "203.0.113.99")[0])
    await writer.write(clicks=[by_address])
    found = await attributed(database_url)
    assert sorted(by for _, by in found.values()) == ["adid", "adid_sha1", "fingerprint"]


async def test_two_members_that_write_a_click_and_its_install_at_once_bring_them_together(database_url):
    members = [await opened(database_url) for _ in range(2)]
    rounds = 30
    for number in range(rounds):
        adid = f"{number:08x}-0000-4000-8000-000000000000"
        spans = [
            Span(partition, number, number + 1, records_of(partition, [value], number))
            for partition, value in ((CLICKS, click(keys_of(adid)[0])), (INAPP, install(adid)))
        ]
        await asyncio.gather(
            *(
                member.write(Batch("cluster", [span]))
                for member, span in zip(members, spans if number % 2 else spans[::-1], strict=True)
            )
        )
    for member in members:
        await member.close()
    assert len(await attributed(database_url)) == rounds


async def test_of_two_members_that_have_the_same_batch_one_writes_it(sink, database_url):
    other = await opened(database_url)
    values = [click(BY_ADID), *(click(keys_of(OTHER)[0]) for _ in range(300))]
    batch = Batch("cluster", [Span(CLICKS, 0, len(values), records_of(CLICKS, values))])
    outcomes = await asyncio.gather(sink.write(batch), other.write(batch), return_exceptions=True)
    assert [type(one) for one in outcomes if isinstance(one, Exception)] == [MovedError]
    assert await count(database_url, "attribution_clicks") == len(values)
    await other.close()


async def test_clicks_past_their_window_and_installs_past_their_wait_are_forgotten_some_at_a_time(
    database_url, monkeypatch
):
    monkeypatch.setattr("consumers.attribution_rows.PRUNED_AT_ONCE", 3)
    sink = await opened(database_url, wait_seconds=0)
    writer = Writer(sink)
    await writer.write(clicks=[click(BY_ADID) for _ in range(4)], inapp=[install(OTHER) for _ in range(2)])
    await until_the_next_second()
    assert [await sink.prune() for _ in range(3)] == [3, 1, 0]
    for table in ("attribution_clicks", "attribution_installs", "attribution_install_keys"):
        assert await count(database_url, table) == 0
    await writer.write(clicks=[click(keys_of(OTHER)[0])])
    assert await attributed(database_url) == {}
    await sink.close()


async def until_the_next_second():
    now = int(time.time())
    while int(time.time()) == now:
        await asyncio.sleep(0.02)


async def test_what_is_still_in_its_window_or_waits_is_kept(writer, sink, database_url):
    now = NOON.now(NOON.tzinfo)
    await writer.write(
        clicks=[click(BY_ADID, now), click(BY_ADID, now - (WAIT_SECONDS - 60) * MINUTE / 60, 0)],
        inapp=[install(OTHER, now)],
    )
    assert await sink.prune() == 0
    assert await count(database_url, "attribution_clicks") == 2
    assert await count(database_url, "attribution_installs") == 1


async def test_nothing_is_forgotten_before_everything_is_read(sink, database_url):
    progress = sink._progress
    progress.partitions = 2
    long_ago = NOON - timedelta(days=3)
    assert not progress.caught_up
    writer = Writer(sink)
    await writer.write(clicks=[click(BY_ADID, long_ago)])
    progress.lag = {CLICKS: 0, INAPP: 50_000}
    await writer.write(clicks=[click(BY_SHA1, long_ago)])
    assert await count(database_url, "attribution_clicks") == 2
    progress.lag = {CLICKS: 0, INAPP: 5}
    await writer.write(clicks=[click(BY_MD5, long_ago)])
    assert await count(database_url, "attribution_clicks") == 0


async def test_what_is_no_event_is_a_dead_letter_and_its_neighbours_go_on(writer, database_url):
    found_it, clicked = install(ADID), click(BY_ADID)
    without_id = json.dumps(install(OTHER, event_id="x")).encode()
    without_time = json.dumps(install(OTHER, clicked_at="never")).encode()
    poison = [
        None,
        b"",
        b"poison",
        b"\xff",
        b"{}",
        b"/t/click",
        b"/" + b"x" * 200_000,
        json.dumps(click(BY_ADID, link_id=-1)).encode(),
    ]
    dead = await writer.write(
        clicks=[poison[0], clicked, *poison[1:]],
        inapp=[b"[1]", b'{"schema": "inapp/1"}', without_id, without_time, found_it],
    )
    assert len(dead) == len(poison) + 4
    assert await count(database_url, "consumers_dead_letters") == len(dead)
    assert list(await attributed(database_url)) == [found_it["event_id"]]


async def test_other_events_of_apps_and_its_own_are_passed_over(writer, database_url):
    others = [install(ADID, path=path, event=path[3:]) for path in ("/t/mac", "/t/istx", "/t/open", "/ist")]
    text = install_message(ADID).replace(b"/t/ist ", b"/t/mac ")
    assert await writer.write(clicks=[click(BY_ADID)], inapp=[*others, text]) == []
    assert await attributed(database_url) == {}


async def test_positions_move_with_the_rows(writer, sink):
    await writer.write(clicks=[click(BY_ADID)] * 3, inapp=[install(ADID)])
    assert await sink.positions("cluster", {CLICKS: 0, INAPP: 0}) == {CLICKS: 3, INAPP: 1}
    with pytest.raises(MovedError):
        await sink.write(Batch("cluster", [Span(CLICKS, 0, 1, records_of(CLICKS, [click(BY_ADID)]))]))


def test_the_event_id_of_a_mac_is_made_of_the_two():
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    assert mac_id(one, other) == mac_id(one, other) != mac_id(other, one)


def test_a_text_has_the_id_of_its_header_else_one_of_its_place():
    told = "019C13EC-9E7B-7A01-8000-000000000001"
    assert id_of_text({"ce_id": told.encode()}, "c/t/0/1") == told.lower()
    made = {id_of_text(headers, "c/t/0/1") for headers in ({}, {"ce_id": b"x"}, {"ce_id": b"\xff"})}
    assert len(made) == 1
    assert made.isdisjoint({id_of_text({}, "c/t/0/2")})


def test_the_published_keys_are_those_a_text_is_matched_by():
    adid = "ECC27E57-1605-2714-CAFE-13DC6DFB742F"
    told = install_of(install_message(adid, ip="188.103.107.190"), str(uuid.uuid4()))
    assert [key.hex() for _, key in told.keys] == lookup_keys(adid, "188.103.107.190", "ios")
    assert [rank for rank, _ in told.keys] == [0, 1, 2, 3]
    assert [rank for rank, _ in install_of(install_message(None, ip=ADDRESS), "x").keys] == [3]


@given(st.binary() | st.binary().map(lambda raw: b"/t/ist ts=1 " + raw.replace(b" ", b"")))
def test_whatever_is_read_is_an_event_or_unreadable(value):
    for read in (click_of, install_of):
        try:
            read(value, str(uuid.UUID(int=0)))
        except UnreadableError:
            continue


@given(
    st.dictionaries(st.sampled_from([*click(BY_ADID), *install(ADID)]), st.integers() | st.text() | st.none())
)
def test_a_json_event_with_anything_in_it_is_read_or_unreadable(change):
    for read, value in ((click_of, click(BY_ADID)), (install_of, install(ADID))):
        try:
            read(json.dumps(value | change).encode(), "x")
        except UnreadableError:
            continue
