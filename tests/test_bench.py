"""What `make bench` keeps, compares and computes; what it measures, nobody asserts."""

import json
from pathlib import Path

from capacity import DECADES, Costs, needs
from document import DOCUMENT, written
from table import Row, keep, kept, moved
from visitors import lines

from collector.event import CLICKS, Event

BENCH = Path(__file__).parent.parent / "bench"


def row(name, ratio, baseline="bare"):
    return Row(name, "CPU µs", (1.0,), baseline, ratio)


def test_only_ratios_that_differ_by_more_than_15_percent_are_told():
    committed = [row("a click", 2.0), row("a page", 2.0), row("a start", 2.0, "once"), row("gone", 2.0)]
    found = [row("a click", 2.31), row("a page", 2.29), row("a start", 9.0, "now"), row("new", 2.0)]
    assert moved(found, committed) == ["a click: 2 × bare before, 2.31 × now"]


def test_a_part_that_is_measured_again_leaves_the_others_as_they_were(tmp_path):
    path = tmp_path / "bench.json"
    keep({"clicks": [row("a click", 2.0)], "pages": [row("a page", 2.0)]}, path)
    keep({"pages": [row("a page", 3.0)]}, path)
    assert kept(path) == {"clicks": [row("a click", 2.0)], "pages": [row("a page", 3.0)]}


def test_figures_of_another_machine_are_not_mixed_in(tmp_path):
    path = tmp_path / "bench.json"
    keep({"clicks": [row("a click", 2.0)]}, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": {"cores": 96}}))
    keep({"pages": [row("a page", 3.0)]}, path)
    assert list(kept(path)) == ["pages"]


def test_what_ten_times_the_clicks_need_is_at_most_ten_times_as_much():
    costs = Costs(130, 800, 6, 50, 19, 20_000, 800, 1_400)
    for fewer, more in ((needs(one, costs), needs(10 * one, costs)) for one in DECADES):
        assert fewer.collectors <= more.collectors <= 10 * fewer.collectors
        assert fewer.collectors <= fewer.or_with_tls <= more.or_with_tls <= 10 * fewer.or_with_tls
        assert fewer.cores <= more.cores <= 10 * fewer.cores
        assert more.queues >= max(more.redis, more.kafkastores)
        assert more.partitions >= more.consumers
    assert needs(4_600, costs).collectors == 1
    assert needs(4_700, costs).collectors == 2


def test_the_document_has_a_place_for_every_table_and_keeps_its_sentences():
    before = DOCUMENT.read_text("utf-8")
    parts = [path.stem for path in BENCH.glob("*.py") if "\ndef measure(shared" in path.read_text("utf-8")]
    after = written(before, {part: f"| {part} was here |" for part in (*parts, "order", "capacity")})
    for part in (*parts, "order", "capacity"):
        assert f"<!-- {part} -->\n| {part} was here |\n<!-- /{part} -->" in after
    assert [line for line in before.splitlines() if not line.startswith("|")] == [
        line for line in after.splitlines() if not line.startswith("|")
    ]


def test_made_up_lines_are_events_of_agents_that_come_back_or_do_not():
    agents = {}
    for kind in ("realistic", "new places", "all new"):
        events = [Event.decode(line, {CLICKS}) for line in lines(kind, 300, seen=50)]
        assert len({event.params for event in events}) == len(events)
        agents[kind] = len({event.user_agent for event in events})
    assert agents["realistic"] <= agents["new places"] == 50
    assert agents["all new"] == 300
