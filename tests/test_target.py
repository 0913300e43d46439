"""The URL a visitor is sent to: byte for byte as recorded, or with what the link asks for and nothing else."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from collector.click import Visit
from collector.event import decode_query
from collector.target import Facts, decorated, target_of
from links.link import link_of

CASES = yaml.safe_load((Path(__file__).parent / "data" / "decorated_targets.yml").read_text("utf-8"))


def facts_of(case):
    utm = {name: value.encode() for name, value in case.get("utm", {}).items()}
    adid, click = (case[name].encode() if name in case else None for name in ("adid", "click"))
    return Facts("c1", "ios", adid, click, utm, decode_query(case.get("query", "").encode()))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["target"][:40])
def test_a_target_becomes_what_its_link_asks_for(case):
    link = link_of({"id": 1, **case["link"]})
    assert decorated(link, case["target"], facts_of(case)) == case["becomes"]


def test_a_visit_brings_what_its_link_asks_for():
    visit = Visit("c1", 0, "127.0.0.1", b"", decode_query(b"click=k&adid=a&utm_term=t"))
    record = {
        "id": 1,
        "utm_source": "s",
        "store_referrer": True,
        "target_url": {"ios": "market://details?id={adid}{click}"},
    }
    assert target_of(link_of(record), visit, "ios") == (
        "market://details?id=Ak&referrer=utm_source%3Ds%26utm_term%3Dt%26click_id%3Dc1"
    )
    assert target_of(link_of(record), visit, "android") is None


@given(
    query=st.binary(max_size=60),
    campaign=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    adid=st.binary(max_size=20),
    target=st.sampled_from(
        [
            "https://a.example",
            "https://a.example/{campaign}?x={adid}#{click}",
            "market://details?id={adid}",
            "https://play.google.com/store/apps/details?id=1",
            "https://apps.apple.com/app/id1{adid}",
            "intent:#Intent;S.x={campaign};end",
            "https://{campaign}@a.example/{adid}",
        ]
    ),
)
def test_no_request_changes_where_a_link_leads_or_adds_a_header(query, campaign, adid, target):
    link = link_of({"id": 1, "campaign": campaign, "forward_query": True, "store_referrer": True})
    becomes = decorated(
        link, target, Facts("c1", "ios", adid, adid, {"utm_source": adid}, decode_query(query))
    )
    assert urlsplit(becomes)[:2] == urlsplit(target)[:2]
    assert becomes.isascii()
    assert not {character for character in becomes if ord(character) <= 32}
