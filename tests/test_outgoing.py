"""What goes out of a batch: each line as if it were alone, in order, however they are mixed."""

from itertools import cycle, islice

import pytest
from structlog.testing import capture_logs

from collector.event import CLICK_PATH, CLICKS, Event
from geoip.place import NOWHERE
from kafkastore.outgoing import MOST_BYTES, TOGETHER, Enricher
from kafkastore.queue import Batch
from kafkastore.settings import KafkastoreSettings
from process.settings import read_settings

NOW_MS = 1769860800160
PERSON = b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Mobile/15E148 Safari/604.1"
BOT = b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def click(number, agent, own=b"x", ip="203.0.113.42"):
    params = b"campaign_link_id=%d&click=%d&reqparams=%b" % (number % 7, number, own)
    return Event(ip, 1769860800, CLICKS, CLICK_PATH, params, agent).encode()


LINES = {
    "click": lambda number: click(number, PERSON),
    "bot": lambda number: click(number, BOT),
    "no event": lambda number: b"garbage %d" % number,
    "larger once enriched": lambda number: click(number, PERSON, b"x" * (MOST_BYTES // 2)),
    "too large": lambda number: b"x" * (MOST_BYTES + 1 + number),
}
MIXED = ["click"] * 6 + ["no event", "bot", "larger once enriched", "bot", "too large", "no event", "click"]
"""13: a hundred ends elsewhere each time."""


def enricher(place_of=lambda _address: NOWHERE, **environ):
    settings = read_settings(KafkastoreSettings, {"KAFKA_URL": "kafka://127.0.0.1:9092", **environ})
    return Enricher(settings, place_of)


def batch_of(lines, first=0):
    return Batch("00000000-0000-4000-8000-000000000000", None, [b""] * first + lines)


@pytest.mark.parametrize("number", [0, 1, TOGETHER - 1, TOGETHER, TOGETHER + 1, 2 * TOGETHER + 30])
@pytest.mark.parametrize("bots", ["separate", "drop"])
def test_a_batch_comes_to_what_its_lines_come_to_by_themselves_in_order(number, bots):
    kinds = list(islice(cycle(MIXED), number))
    lines = [LINES[kind](index) for index, kind in enumerate(kinds)]
    together = enricher(BOTS=bots).outgoing(batch_of(lines), NOW_MS)

    records, invalid, dropped = {}, [], 0
    for index, line in enumerate(lines):
        one = enricher(BOTS=bots).outgoing(batch_of([line], first=index), NOW_MS)
        records |= {where: record for where, record in one.records.items() if where == index}
        invalid += [where for where in one.invalid if where == index]
        dropped += one.dropped_bots
    assert list(together.records.items()) == list(records.items())
    assert (together.invalid, together.dropped_bots) == (tuple(invalid), dropped)

    assert len(records) == sum(
        kind != "too large" and (kind != "bot" or bots == "separate") for kind in kinds
    )
    assert [kinds[index] for index in invalid] == ["too large"] * kinds.count("too large")
    assert dropped == (kinds.count("bot") if bots == "drop" else 0)
    for index, record in records.items():
        dead = kinds[index] in ("no event", "larger once enriched")
        assert record.topic == ("clicks.dead" if dead else "bots" if kinds[index] == "bot" else "clicks")
        assert not dead or record.value == lines[index]


def test_an_event_we_fail_at_is_a_dead_letter_and_its_neighbours_go_on():
    def place_of(address):
        return {"203.0.113.42": NOWHERE}[address]  # as a table with a hole nobody knew of

    lines = [click(number, PERSON) for number in range(TOGETHER + 5)]
    with_fault = {7, TOGETHER + 4}
    for index in with_fault:
        lines[index] = click(index, PERSON, ip="198.51.100.7")
    with capture_logs() as logs:
        found = enricher(place_of).outgoing(batch_of(lines), NOW_MS).records
    expected = enricher().outgoing(batch_of(lines), NOW_MS).records
    assert list(found) == list(range(len(lines)))
    assert {index for index in found if found[index] != expected[index]} == with_fault
    for index in with_fault:
        assert (found[index].topic, found[index].value) == ("clicks.dead", lines[index])
        assert dict(found[index].headers)["reason"] == b"fault: KeyError"
    assert [entry["event"] for entry in logs] == ["event_not_enriched"] * 2, "once a hundred events"
