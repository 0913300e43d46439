"""What an agent runs on: a table of agents, and that nothing in a header can break the reading."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ua_parser.regex import Resolver

from collector.platform import platform_of
from kafkastore import device as device_module
from kafkastore.device import Device, device_of, warm

CASES = yaml.safe_load((Path(__file__).parent / "data" / "devices.yml").read_text("utf-8"))
KINDS = {
    "smartphone",
    "feature phone",
    "tablet",
    "desktop",
    "tv",
    "console",
    "wearable",
    "car browser",
    "smart speaker",
    "portable media player",
    None,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["agent"][:60])
def test_an_agent_is_read_as_what_it_says(case):
    expected = Device(case["browser"], case["os"], case["device"], case["device_name"])
    assert device_of(case["agent"].encode()) == expected
    assert platform_of(case["agent"].encode()) == case["platform"]


def test_the_table_is_rich_and_says_nothing_twice():
    agents = [case["agent"] for case in CASES]
    assert len(agents) == len(set(agents)) >= 500
    assert {case["device"] for case in CASES} == KINDS


def test_the_rust_resolver_reads_and_is_built_once():
    warm()
    resolver = device_module._resolver()
    assert isinstance(resolver, Resolver)
    assert device_module._resolver() is resolver


def test_desktops_and_crawlers_have_no_name():
    assert all(case["device_name"] is None for case in CASES if case["device"] in {"desktop", None})


@given(st.binary(max_size=3000))
def test_any_bytes_have_one_answer(agent):
    device = device_of(agent)
    assert device == device_of(agent)
    assert device.device in KINDS


@given(st.lists(st.sampled_from([case["agent"] for case in CASES]), max_size=4), st.binary(max_size=50))
def test_pieces_of_agents_have_one_answer(agents, noise):
    agent = noise.join(agent.encode() for agent in agents)
    assert device_of(agent) == device_of(agent)


def test_only_the_first_1024_bytes_are_read():
    assert device_of(b"x" * 1018 + b"iPhone").device == "smartphone"
    assert device_of(b"x" * 1019 + b"iPhone") == Device(None, None, None, None)
