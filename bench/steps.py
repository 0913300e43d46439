"""The steps of a click, each by itself, again and again in one process, in turns: part of `make bench`.

Beside what the standard library takes to write the same parameters, which is what anybody's code begins with.
"""

import tempfile
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from rig import cpu_us
from shared import Shared
from table import Row, in_turns, rows

from collector.click import Click, Visit
from collector.event import Event, decode_query, decode_texts
from collector.open_journal import OpenJournal
from collector.platform import platform_of
from collector.space import Space
from geoip.database import open_database
from kafkastore.enrichment import Policy, Source, enrich
from links.link import link_of

CALLS, QUICK_CALLS = 5_000, 500
BARE = "step: urlencode of the same parameters"
LINK = link_of(
    {"id": 46, "slug": "winter", "campaign": "Winter Sale", "user_id": 9, "attribution_window_idfa": 70}
)
AGENT = b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Mobile/15E148 Safari/604.1"
QUERY = b"adid=ecc27e5716052714cafe13dc6dfb742f&click=z%20z&x=%C3%BC&y"
TOPICS = frozenset({"clicks"})
AT_MS = 1769860800123


def measure(shared: Shared) -> list[Row]:
    """Give every step in the processor's time."""
    visit = Visit(
        "019c13ec-9e7b-7a01-8000-000000000001",
        AT_MS,
        "203.0.113.42",
        AGENT,
        decode_query(QUERY),
        "news.example.org",
    )
    click = Click(LINK, visit, "ios", "https://apps.example/i")
    event = click.event()
    line = event.encode()
    params = list(decode_texts(event.params.decode()).items())
    place_of = open_database().place_of
    source, policy = Source("00000000-0000-4000-8000-000000000000", 0), Policy()
    with tempfile.TemporaryDirectory() as directory:
        journal = OpenJournal(Path(directory), Space(1 << 30))
        steps = {
            BARE: lambda _: urlencode(params),
            "step: platform of a known agent": lambda _: platform_of(AGENT),
            "step: click → event": lambda _: click.event(),
            "step: event → line": lambda _: event.encode(),
            "step: journal.append": lambda _: journal.append(line),
            "step: line → event": lambda _: Event.decode(line, TOPICS),
            "step: event → record, agent known, by itself": lambda _: enrich(
                [(event, source)], now_ms=AT_MS + 37, place_of=place_of, policy=policy
            ),
        }
        calls = range(QUICK_CALLS if shared.effort.quick else CALLS)
        for step in steps.values():
            cpu_us(step, calls[:100])
        found = in_turns(
            {name: partial(cpu_us, step, calls) for name, step in steps.items()}, 3 * shared.effort.rounds
        )
    return rows(found, "CPU µs", {name: BARE for name in steps if name != BARE})
