"""Microseconds of one click's steps in one process, in turns, median and spread: `.venv/bin/python bench/click.py`.

No test asserts these: machines differ and are shared. Compare rows of one run with each other.
"""

import statistics
import tempfile
import time
from pathlib import Path

from collector.click import Click, Visit
from collector.event import Event, decode_query
from collector.open_journal import OpenJournal
from collector.platform import platform_of
from collector.space import Space
from geoip.database import open_database
from kafkastore.enrichment import Policy, Source, enrich
from links.link import link_of

ROUNDS = 15
CALLS = 2_000
LINK = link_of(
    {"id": 46, "slug": "winter", "campaign": "Winter Sale", "user_id": 9, "attribution_window_idfa": 70}
)
AGENT = b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Mobile/15E148 Safari/604.1"
QUERY = b"adid=ecc27e5716052714cafe13dc6dfb742f&click=z%20z&x=%C3%BC&y"
TOPICS = frozenset({"clicks"})


def main():
    visit = Visit(
        "019c13ec-9e7b-7a01-8000-000000000001",
        1769860800123,
        "203.0.113.42",
        AGENT,
        decode_query(QUERY),
        "news.example.org",
    )
    click = Click(LINK, visit, "ios", "https://apps.example/i")
    event = click.event()
    line = event.encode()
    place_of = open_database().place_of
    source, policy = Source("00000000-0000-4000-8000-000000000000", 0), Policy()
    with tempfile.TemporaryDirectory() as directory:
        journal = OpenJournal(Path(directory), Space(1 << 30))
        steps = {
            "platform of a known agent": lambda: platform_of(AGENT),
            "click → event": click.event,
            "event → line": event.encode,
            "journal.append": lambda: journal.append(line),
            "line → event": lambda: Event.decode(line, TOPICS),
            "event → record, agent known": lambda: enrich(
                event, source, now_ms=1769860800160, place_of=place_of, policy=policy
            ),
        }
        figures = {name: [] for name in steps}
        for _ in range(ROUNDS):
            for name, step in steps.items():
                began = time.perf_counter()
                for _ in range(CALLS):
                    step()
                figures[name].append((time.perf_counter() - began) / CALLS * 1e6)
    for name, found in figures.items():
        print(f"{name:<30} {statistics.median(found):7.2f} µs  ({min(found):.2f} – {max(found):.2f})")


if __name__ == "__main__":
    main()
