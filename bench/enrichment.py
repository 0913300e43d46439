"""Processor time of enriching clicks, as a day's look like, by step: part of `make bench`.

Agents and networks come back as often as Zipf's law says (visitors.py), a thousand clicks a second. The first row,
the value's JSON by itself, is the baseline. What was never seen is looked at with ever other agents.
"""

import itertools
import statistics
from functools import partial

import msgspec
from rig import cpu_us
from shared import Shared
from table import Row, in_turns, rows
from visitors import AGENTS, BEGIN, agents, lines

from collector.event import Event
from geoip.database import open_database
from kafkastore.agent import agent_of
from kafkastore.bots import bot_of
from kafkastore.device import device_of, warm
from kafkastore.enrichment import Policy, Source, enrich
from kafkastore.outgoing import TOGETHER
from kafkastore.record import ClickValue, encode_value
from kafkastore.visitor import address_of, masked, visitor_id

EVENTS, QUICK_EVENTS = 20_000, 2_000
UNSEEN = 10
"""Of so many events one has its agent looked at: these steps take ten times as long."""
TOPICS = frozenset({"clicks"})
NONE = frozenset()
BARE = "enrichment: the value's JSON by itself"
WHOLE = "enrichment: event → record, all of it"
LINE, VALUE = "size: a click's line", "size: its value, JSON"


def measure(shared: Shared) -> list[Row]:
    """Give every step in the processor's time of an event."""
    effort = shared.effort
    warm()
    number = QUICK_EVENTS if effort.quick else EVENTS
    written = list(lines("realistic", number, seen=effort.agents))
    events = [Event.decode(line, TOPICS) for line in written]
    never_seen = (Event.decode(line, TOPICS) for line in lines("all new", number * (effort.rounds + 1)))
    agents_never_seen = (agent.encode() for agent in agents(100 * AGENTS))
    place_of = open_database().place_of
    source, policy = Source("00000000-0000-4000-8000-000000000000", 0), Policy()

    def whole(some):
        together = [(event, source) for event in some]
        return enrich(together, now_ms=BEGIN * 1000 + 30_000, place_of=place_of, policy=policy)

    def whole_us(cases) -> float:
        some = [cases[first : first + TOGETHER] for first in range(0, len(cases), TOGETHER)]
        return cpu_us(whole, some) * len(some) / len(cases)

    def unseen(step, cases) -> float:
        return cpu_us(step, list(itertools.islice(cases, number // UNSEEN)))

    def slowest(step, cases) -> float:
        return statistics.quantiles(
            (cpu_us(step, [case]) for case in itertools.islice(cases, number)), n=1000
        )[-1]

    values = [msgspec.json.decode(record.value, type=ClickValue) for record in whole(events)]
    steps = {
        BARE: (encode_value, values),
        "enrichment: line → event, before it": (lambda line: Event.decode(line, TOPICS), written),
        "enrichment: the address, read and masked": (lambda event: masked(address_of(event.ip)), events),
        "enrichment: visitor id": (
            lambda event: visitor_id(event.ip, event.user_agent, event.at),
            events,
        ),
        "enrichment: place (the shipped table)": (lambda event: place_of(event.ip), events),
        "enrichment: a known agent": (lambda event: agent_of(event.user_agent, NONE), events),
    }
    found = in_turns(
        {name: partial(cpu_us, *step) for name, step in steps.items()}
        | {
            WHOLE: partial(whole_us, events),
            "enrichment: device of an agent never seen": partial(unseen, device_of, agents_never_seen),
            "enrichment: bot of an agent never seen": partial(
                unseen, lambda agent: bot_of(agent, NONE), agents_never_seen
            ),
            "enrichment: an agent never seen, 999 of 1,000 take at most": partial(
                slowest, lambda agent: agent_of(agent, NONE), agents_never_seen
            ),
            f"{WHOLE}, place and agent never seen": lambda: whole_us(
                list(itertools.islice(never_seen, number // UNSEEN))
            ),
        },
        effort.rounds,
    )
    sizes = {
        LINE: [statistics.mean(map(len, written))],
        VALUE: [statistics.mean(len(encode_value(one)) for one in values)],
    }
    return [
        *rows(found, "CPU µs", {name: BARE for name in found if name != BARE}),
        *rows(sizes, "bytes", {VALUE: LINE}),
    ]
