"""Who clicks, and the lines that a collector writes of it: made-up agents, addresses and clicks for all parts.

A day has 30,000 different agents, met as often as Zipf's law says, and so are 100,000 networks; every third of them
is IPv6. Lines come from the collector's own code, one of each of 2,000 links; what differs by click is put in.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Literal

from collector.click import Click, Visit
from collector.event import decode_query
from links.link import link_of

AGENTS = 30_000
NETWORKS = 100_000
LINKS = 2_000
BEGIN = 1769860800
"""The clicks' second; each has its own millisecond, as at a thousand a second."""

Kind = Literal["realistic", "new places", "all new"]

_ADDRESS, _AGENT = b"192.0.2.1", b"the agent"
_MARK = b"-000000000000"
"""Ends the event's id and the adid of a template."""
_MILLISECONDS = b".777Z"
"""Of a template's time: each click has its own."""
_EVENT_ID = "019c13ec-9e7b-7a01-8000-000000000000"
_QUERY = b"adid=ecc27e5716052714cafe000000000000&click=z%20z&x=%C3%BC-000000000000&y"


def agents(first: int = 0) -> Iterator[str]:
    """Give ever other agents: phones and desktops whose versions and models differ."""
    for number in itertools.count(first):
        major, minor, model = 10 + number % 9, number // 9 % 10, number // 90
        yield (
            f"Mozilla/5.0 (Linux; Android {major}; SM-A{model}B) AppleWebKit/537.36 (KHTML, like Gecko) "
            f"Chrome/12{minor}.0.{model}.{number % 200} Mobile Safari/537.36"
            if number % 2
            else f"Mozilla/5.0 (iPhone; CPU iPhone OS {major}_{minor} like Mac OS X) AppleWebKit/605.1.15 "
            f"(KHTML, like Gecko) Version/{major}.{minor} Mobile/15E{model} Safari/604.1"
        )


def lines(kind: Kind, number: int, *, seen: int = AGENTS, first: int = 0) -> Iterator[bytes]:
    """Give click lines: agents and places that come back, places that never do, or neither.

    `seen` are the agents that come back; `first` is where to begin with those that never do.
    """
    rng = random.Random(first + 7)
    templates = [_template(link) for link in range(1, LINKS + 1)]
    known = [agent.encode() for agent in itertools.islice(agents(), seen)]
    unknown = agents(AGENTS + first)
    for click in range(first, first + number):
        agent = next(unknown).encode() if kind == "all new" else known[click % seen]
        network = rng.getrandbits(64)
        if kind == "realistic":
            agent, network = known[zipf(rng, seen)], zipf(rng, NETWORKS)
        line = rng.choice(templates).replace(_MARK, b"-%012x" % click)
        line = line.replace(_MILLISECONDS, b".%03dZ" % (click % 1000))
        yield _address(network, rng.randrange(1, 255)) + line + agent


def zipf(rng: random.Random, most: int) -> int:
    """Give a number below `most`: the n-th as often as 1/n."""
    return int(most ** rng.random()) - 1 if most > 1 else 0


def _address(network: int, host: int) -> bytes:
    spread = network * 0x9E3779B97F4A7C15 % (1 << 64)  # neighbours in number are none on the net
    if spread % 3 == 0:
        return b"2a02:%x:%x:%x::%x" % (spread >> 48, spread >> 32 & 0xFFFF, spread >> 16 & 0xFFFF, host)
    return b"%d.%d.%d.%d" % (1 + (spread >> 56) % 222, spread >> 48 & 0xFF, spread >> 40 & 0xFF, host)


def _template(number: int) -> bytes:
    """Give the line of one link's click, without address and agent, its own numbers marked."""
    link = link_of(
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
    visit = Visit(
        _EVENT_ID,
        BEGIN * 1000 + 777,
        _ADDRESS.decode(),
        _AGENT,
        decode_query(_QUERY),
        "news.example.org",
    )
    line = Click(link, visit, "ios", f"https://apps.example/i/{number}?c={number}").event().encode()
    assert line.count(_MARK) > 1 == line.count(_MILLISECONDS), line  # noqa: S101
    return line.removeprefix(_ADDRESS).removesuffix(_AGENT)
