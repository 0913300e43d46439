"""What a batch adds to the totals: total over all values, exact for those that are events."""

import json
from datetime import date
from types import SimpleNamespace

import pytest
import yaml
from consumers_world import DATA, EXAMPLES, event, expected
from hypothesis import given
from hypothesis import strategies as st

from consumers.counts import NO_LINK, counts_of
from consumers.sink import Batch, Span


def record(value, offset=0):
    raw = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return SimpleNamespace(topic="clicks", partition=0, offset=offset, value=raw)


def click(**fields):
    return EXAMPLES["click"] | fields


def dead_value(case):
    if "value" in case:
        return case["value"].encode() if isinstance(case["value"], str) else case["value"]
    value = EXAMPLES[case["example"]] | case.get("change", {})
    value.pop(case.get("without"), None)
    return value


def test_a_batch_counts_what_each_of_its_events_says(rng):
    values = [event(number, rng)[1] for number in range(500)]
    counts, wanted = counts_of(map(record, values)), expected(values)
    assert counts.links == wanted["links"]
    assert counts.users == wanted["users"]
    assert {(link, str(day)): clicks for (link, day), clicks in counts.clicks.items()} == {
        key: clicks for key, (clicks, *_) in wanted["days"].items() if clicks
    }
    assert {(link, str(day), *rest): clicks for (link, day, *rest), clicks in counts.by.items()} == wanted[
        "by"
    ]
    assert counts.referrals.keys() == wanted["referrals"].keys()
    assert not counts.dead


@pytest.mark.parametrize("case", yaml.safe_load((DATA / "consumers_dead.yml").read_text("utf-8")), ids=str)
def test_a_value_that_is_no_event_is_dead_with_a_reason_and_its_neighbours_count(case):
    poison = record(dead_value(case))
    counts = counts_of([record(click()), poison, record(click())])
    ((dead, reason),) = counts.dead
    assert dead is poison
    assert case["reason"] in reason
    assert counts.links == {46: 2}


@pytest.mark.parametrize(
    "case", yaml.safe_load((DATA / "consumers_referrers.yml").read_text("utf-8")), ids=str
)
def test_a_referrer_counts_under_its_host_name(case):
    counts = counts_of([record(click(referer=case["referer"]))])
    assert [value for _, _, what, value in counts.by if what == "referrer"] == [case["domain"]]


def test_a_click_counts_on_its_utc_day():
    counts = counts_of([record(click(clicked_at="2026-02-01T01:30:00.000+02:00"))])
    assert list(counts.clicks) == [(46, date(2026, 1, 31))]


def test_clicks_that_name_no_link_are_counted_apart_and_add_to_none():
    counts = counts_of([record(click(link_id=None))])
    assert list(counts.clicks) == [(NO_LINK, date(2026, 1, 31))]
    assert not counts.links


def test_a_bot_is_no_click_of_the_links_or_the_owners():
    counts = counts_of([record(click(bot_class="search"))])
    assert (counts.bots.total(), counts.previews.total()) == (1, 0)
    assert not counts.clicks
    assert not counts.users
    assert not counts.visitors


def test_a_preview_is_a_bots_click_and_counted_by_itself_too():
    counts = counts_of([record(click(bot_class="preview"))])
    assert counts.bots == counts.previews == {(46, date(2026, 1, 31)): 1}


@given(st.binary() | st.none())
def test_counting_is_total(value):
    counts = counts_of([record(value)])
    assert len(counts.dead) + counts.clicks.total() + counts.bots.total() + len(counts.referrals) == 1


@given(st.integers(2, 50), st.integers(1, 4))
def test_a_batch_is_halved_without_a_gap_until_single_records_are_left(size, partitions):
    spans = [
        Span((partition,), 10, 10 + 2 * size, [record(b"", 10 + 2 * number) for number in range(size)])
        for partition in range(partitions)
    ]
    left, pieces = [Batch("cluster", spans)], []
    while left:
        batch = left.pop(0)
        left = [*batch.halves(), *left] if batch.size > 1 else left
        pieces += batch.spans if batch.size <= 1 else ()
    for partition in range(partitions):
        mine = [piece for piece in pieces if piece.partition == (partition,)]
        assert [piece.begin for piece in mine] == [10, *(piece.end for piece in mine[:-1])]
        assert mine[-1].end == 10 + 2 * size
        assert all(piece.begin <= one.offset < piece.end for piece in mine for one in piece.records)
