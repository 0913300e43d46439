"""Which platform an agent is on: a table of agents, and that nothing in a header can break the look-up."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from collector.platform import platform_hint, platform_of

CASES = yaml.safe_load((Path(__file__).parent / "data" / "platforms.yml").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["agent"][:60])
def test_an_agent_is_on_the_platform_it_names(case):
    assert platform_of(case["agent"].encode()) == case["platform"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["agent"][:60])
def test_upper_and_lower_case_make_no_difference(case):
    assert platform_of(case["agent"].upper().encode()) == case["platform"]


def test_the_table_is_rich_and_says_nothing_twice():
    agents = [case["agent"] for case in CASES]
    assert len(agents) == len(set(agents)) >= 200
    assert sum("contract" in case for case in CASES) == 12


@given(st.binary(max_size=3000))
def test_any_bytes_have_one_answer(agent):
    assert platform_of(agent) == platform_of(bytes(bytearray(agent)))


@given(st.lists(st.sampled_from([case["agent"] for case in CASES]), max_size=4), st.binary(max_size=50))
def test_pieces_of_agents_have_one_answer(agents, noise):
    agent = noise.join(agent.encode() for agent in agents)
    assert platform_of(agent) == platform_of(bytes(bytearray(agent)))


def test_only_the_first_1024_bytes_are_looked_at():
    assert platform_of(b"x" * 1017 + b"Android") == "android"
    assert platform_of(b"x" * 1018 + b"Android") == ""
    assert platform_of(b"") == ""


@pytest.mark.parametrize(
    ("header", "platform"),
    [
        ('"Android"', "android"),
        ('"iOS"', "ios"),
        ('"Windows"', "windows"),
        ('"macOS"', "mac"),
        ('"Linux"', "gnu/linux"),
        ('"Chrome OS"', "chrome os"),
        ('"Chromium OS"', "chrome os"),
        ("macOS", "mac"),
        ('  "WINDOWS" ', "windows"),
        ('"Unknown"', ""),
        ('""', ""),
        ("", ""),
        ('"', ""),
        ("\udcff", ""),
    ],
)
def test_a_hint_uses_the_same_words(header, platform):
    assert platform_hint(header) == platform


@given(st.text())
def test_any_hint_has_an_answer(header):
    assert isinstance(platform_hint(header), str)
