"""Processor time of enriching a click, as a day's look like: `.venv/bin/python bench/enrichment.py`.

30,000 different user agents, met as often as Zipf's law says, random addresses (every third IPv6), 2,000 links, a
thousand clicks a second. The first row, the value's JSON by itself, is the baseline. No test asserts these: machines
differ and are shared. Compare rows of one run with each other.
"""

import itertools
import json
import random
import statistics
import time
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec
import uuid_utils

from collector.click import Click, Visit
from collector.event import Event, decode_query
from geoip.database import open_database
from kafkastore import enrichment
from kafkastore.bots import bot_of
from kafkastore.device import device_of, warm
from kafkastore.enrichment import Policy, Source, agent_of, enrich
from kafkastore.record import ClickValue, encode_value
from kafkastore.visitor import address_of, masked, visitor_id
from links.link import link_of

AGENTS = 30_000
LINKS = 2_000
EVENTS = 20_000
ROUNDS = 5
BEGIN = 1769860800
TOPICS = frozenset({"clicks"})
NONE = frozenset()
LIMIT_MS = 1.0


def agents():
    """Phones and desktops whose versions and models differ, the more frequent the earlier."""
    for number in range(AGENTS):
        major, minor, model = 10 + number % 9, number // 9 % 10, number // 90
        yield (
            f"Mozilla/5.0 (Linux; Android {major}; SM-A{model}B) AppleWebKit/537.36 (KHTML, like Gecko) "
            f"Chrome/12{minor}.0.{model}.{number % 200} Mobile Safari/537.36"
            if number % 2
            else f"Mozilla/5.0 (iPhone; CPU iPhone OS {major}_{minor} like Mac OS X) AppleWebKit/605.1.15 "
            f"(KHTML, like Gecko) Version/{major}.{minor} Mobile/15E{model} Safari/604.1"
        ).encode()


def addresses(rng):
    while True:
        yield str(
            IPv6Address(0x2A02 << 112 | rng.getrandbits(108))
            if rng.random() < 1 / 3
            else IPv4Address(rng.getrandbits(32))
        )


def lines(rng):
    """Give the lines of clicks as the collector writes them."""
    known = list(agents())
    links = [
        link_of(
            {
                "id": number,
                "slug": f"link-{number}",
                "campaign": f"Winter Sale {number}",
                "network": "7games",
                "user_id": number % 50,
                "attribution_window_idfa": 70,
                "utm_source": "newsletter",
            }
        )
        for number in range(LINKS)
    ]
    met = rng.choices(known, [1 / rank for rank in range(1, AGENTS + 1)], k=EVENTS)
    for number, agent, ip in zip(range(EVENTS), met, addresses(rng), strict=False):
        link = rng.choice(links)
        query = decode_query(b"click=z%%20%d&x=%%C3%%BC&y" % number)
        visit = Visit(str(uuid_utils.uuid7()), (BEGIN * 1000) + number, ip, agent, query, "news.example.org")
        yield Click(link, visit, "ios", f"https://apps.example/i/{link.id}?c={number}").event().encode()


def per_event(step, cases):
    """Give the microseconds of the processor that a step takes for a case: the median of the rounds."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for case in cases:
            step(case)
        found.append((time.process_time() - began) / len(cases) * 1e6)
    return statistics.median(found)


def resident_megabytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def unseen():
    """Give the microseconds of every agent that was never seen before."""
    found = []
    for agent in agents():
        began = time.process_time()
        agent_of(agent, NONE)
        found.append((time.process_time() - began) * 1e6)
    return sorted(found)


def main():
    rng = random.Random(7)
    warm()
    written = list(lines(rng))
    events = [Event.decode(line, TOPICS) for line in written]
    place_of = open_database().place_of
    source, policy = Source("00000000-0000-4000-8000-000000000000", 0), Policy()

    def whole(event):
        return enrich(event, source, now_ms=BEGIN * 1000 + 30_000, place_of=place_of, policy=policy)

    values = [msgspec.json.decode(whole(event).value, type=ClickValue) for event in events]
    distinct = list(itertools.islice(agents(), 5_000))
    rows = {
        "the value's JSON, by itself: the baseline": (encode_value, values),
        "the address, read and masked": (lambda event: masked(address_of(event.ip)), events),
        "visitor id": (lambda event: visitor_id(event.ip, event.user_agent, event.at), events),
        "place (the shipped table)": (lambda event: place_of(event.ip), events),
        "a known agent: device, bot, platform": (lambda event: agent_of(event.user_agent, NONE), events),
        "event → record, all of it": (whole, events),
        "line → event, before it": (lambda line: Event.decode(line, TOPICS), written),
        "an agent's device, never seen": (device_of, distinct),
        "an agent's bot, never seen": (lambda agent: bot_of(agent, NONE), distinct),
    }
    print("| | µs |\n|---|---|")
    for name, (step, cases) in rows.items():
        print(f"| {name} | {per_event(step, cases):.1f} |")
    known = enrichment._known_agent  # noqa: SLF001 (to see how much it holds)
    known.cache_clear()
    before = resident_megabytes()
    times = unseen()
    over = sum(one > LIMIT_MS * 1000 for one in times)
    print(
        f"\nunseen agents: median {statistics.median(times):.0f} µs, 99.9 % under {times[-AGENTS // 1000]:.0f} µs, "
        f"{over} of {AGENTS} over {LIMIT_MS} ms\n"
        f"cache: {json.dumps(known.cache_info()._asdict())}, "
        f"{resident_megabytes() - before:.0f} MB"
    )


if __name__ == "__main__":
    main()
