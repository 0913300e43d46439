"""Who is no person: tables of bots and of people, the signals, and that no header can break the look-up."""

from pathlib import Path

import pytest
import yaml
from crawleruseragents import CRAWLER_USER_AGENTS_DATA
from hypothesis import given
from hypothesis import strategies as st

from kafkastore.bots import Bot, bot_of

CASES = yaml.safe_load((Path(__file__).parent / "data" / "bots.yml").read_text("utf-8"))
BOTS, PEOPLE = CASES["bots"], CASES["people"]
CLASSES = {"search", "preview", "ai", "tool", "monitor", "headless", "prefetch", "probe"}
NONE = frozenset[str]()
PERSON = PEOPLE[-5]["agent"].encode()
SIGNALS = st.frozensets(st.sampled_from(["head", "prefetch", "headless", "anonymous_ip", "gpc", "dnt", ""]))

# Patterns of the library that people match: a phone's build number, editors, the browser inside Facebook.
NOT_BOTS = {r"AP3A\.240617\.008", r"Code\/1\.", r"Trae\/", "MetaIAB Facebook"}


@pytest.mark.parametrize("case", BOTS, ids=lambda case: case["agent"][:60])
def test_a_bot_has_its_class_and_name(case):
    bot = bot_of(case["agent"].encode(), NONE)
    assert bot is not None
    assert (bot.class_, bot.name) == (case["class"], case["name"])
    assert bot.reason.startswith("list:")


@pytest.mark.parametrize("case", PEOPLE, ids=lambda case: f"{case['who']}: {case['agent'][:40]}")
def test_a_person_is_no_bot(case):
    assert bot_of(case["agent"].encode(), NONE) is None


def test_the_tables_are_rich_and_say_nothing_twice():
    agents = [case["agent"] for case in BOTS + PEOPLE]
    assert len(agents) == len(set(agents)) >= 240
    assert {case["class"] for case in BOTS} == CLASSES - {"prefetch", "probe"}


@pytest.mark.parametrize("listed", CRAWLER_USER_AGENTS_DATA, ids=lambda listed: listed["pattern"])
def test_every_agent_that_the_library_lists_is_a_bot(listed):
    for agent in listed["instances"]:
        assert (bot_of(agent.encode(), NONE) is None) == (listed["pattern"] in NOT_BOTS)


@pytest.mark.parametrize("agent", [b"", b" ", b"-", b"\t- "])
def test_an_empty_agent_is_a_tool(agent):
    assert bot_of(agent, NONE) == Bot(name=None, class_="tool", reason="empty_agent")


@pytest.mark.parametrize(
    ("signals", "class_", "reason"),
    [
        ({"head"}, "probe", "head"),
        ({"prefetch"}, "prefetch", "prefetch"),
        ({"headless"}, "headless", "headless"),
        ({"head", "prefetch", "headless"}, "probe", "head"),
        ({"prefetch", "headless", "gpc"}, "prefetch", "prefetch"),
    ],
)
@pytest.mark.parametrize("agent", [PERSON, b""])
def test_a_signal_makes_a_bot_of_a_person(agent, signals, class_, reason):
    assert bot_of(agent, frozenset(signals)) == Bot(name=None, class_=class_, reason=reason)


def test_signals_of_privacy_make_no_bot():
    assert bot_of(PERSON, frozenset({"anonymous_ip", "gpc", "dnt"})) is None


@pytest.mark.parametrize("signal", ["head", "prefetch"])
def test_a_listed_bot_keeps_its_name_whatever_it_asks_with(signal):
    bot = bot_of(b"Twitterbot/1.0", frozenset({signal}))
    assert bot is not None
    assert (bot.name, bot.reason) == ("Twitterbot", signal)


def test_a_list_says_more_than_headless():
    assert bot_of(b"Twitterbot/1.0", frozenset({"headless"})) == bot_of(b"Twitterbot/1.0", NONE)


def test_only_the_first_1024_bytes_are_looked_at():
    assert bot_of(b"(" + b"x" * 1009 + b" Twitterbot/1", NONE) is not None
    assert bot_of(b"(" + b"x" * 1023 + b" Twitterbot/1.0", NONE) is None


@given(st.binary(max_size=3000), SIGNALS)
def test_any_bytes_have_one_answer(agent, signals):
    bot = bot_of(agent, signals)
    assert bot == bot_of(agent, signals)
    assert bot is None or bot.class_ in CLASSES


@given(
    st.lists(st.sampled_from([case["agent"] for case in BOTS + PEOPLE]), max_size=4), st.binary(max_size=50)
)
def test_pieces_of_agents_have_one_answer(agents, noise):
    agent = noise.join(agent.encode() for agent in agents)
    assert bot_of(agent, NONE) == bot_of(agent, NONE)
