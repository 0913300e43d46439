"""Made-up visitors for the first run: real user agents, addresses of many countries, links old and unknown."""

import asyncio
import contextlib
import random
from importlib import resources
from ipaddress import IPv4Address, IPv4Network
from typing import Final

import aiohttp

VISITS_PER_SECOND: Final = 4.0

# Networks of universities and carriers, a few a continent: the country table knows them all.
_NETWORKS: Final = tuple(
    IPv4Network(network)
    for network in (
        "130.149.0.0/16",  # Germany
        "129.132.0.0/16",  # Switzerland
        "144.82.0.0/16",  # United Kingdom
        "129.175.0.0/16",  # France
        "130.92.0.0/16",  # Switzerland
        "130.237.0.0/16",  # Sweden
        "131.155.0.0/16",  # Netherlands
        "137.204.0.0/16",  # Italy
        "150.214.0.0/16",  # Spain
        "18.0.0.0/11",  # United States
        "128.32.0.0/16",  # United States
        "142.150.0.0/16",  # Canada
        "143.107.0.0/16",  # Brazil
        "200.16.16.0/20",  # Argentina
        "133.11.0.0/16",  # Japan
        "143.248.0.0/16",  # South Korea
        "140.112.0.0/16",  # Taiwan
        "202.120.0.0/16",  # China
        "137.132.0.0/16",  # Singapore
        "130.194.0.0/16",  # Australia
        "196.21.0.0/16",  # South Africa
        "103.21.124.0/22",  # India
    )
)
_PATHS: Final = (
    (30, "/click/1/go"),
    (25, "/click/2/go?click=c-{n}&utm_medium=video"),
    (12, "/click/3/go?qr=1"),
    (8, "/click/4/go"),
    (20, "/click/2/go?adid={adid}"),
    (5, "/click/4711/go"),
)


async def visit_for_ever(base_url: str) -> None:
    """Send visits to the collector until cancelled; an answer that does not come costs only that visit."""
    agents, weights = _agents()
    chance = random.Random()  # noqa: S311 (visitors, not secrets)
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(base_url, timeout=timeout) as session:
        number = 0
        while True:
            number += 1
            path = chance.choices([path for _, path in _PATHS], [weight for weight, _ in _PATHS])[0]
            network = chance.choice(_NETWORKS)
            address = IPv4Address(int(network.network_address) + chance.randrange(network.num_addresses))
            headers = {
                "User-Agent": chance.choices(agents, weights)[0],
                "X-Forwarded-For": str(address),
                "Referer": chance.choice(("https://news.example.org/today", "https://www.example.com/")),
            }
            adid = f"{chance.getrandbits(128):032x}"
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await session.get(path.format(n=number, adid=adid), headers=headers, allow_redirects=False)
            await asyncio.sleep(chance.expovariate(VISITS_PER_SECOND))


def _agents() -> tuple[list[str], list[float]]:
    """Read the weighted user agents."""
    lines = (
        resources.files("embedded").joinpath("traffic_agents.txt").read_text(encoding="utf-8").splitlines()
    )
    pairs = [line.split("\t", 1) for line in lines if line and not line.startswith("#")]
    return [agent for _, agent in pairs], [float(weight) for weight, _ in pairs]
