"""Files of links: every form read, what is wrong named by its row, and what is written read back as it was."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from links.link import InvalidLinkError, Link, draft_of, link_of, record_of
from links.link_files import UnreadableFileError, csv_lines, json_line, read_links

FILES = Path(__file__).parent / "data" / "links"


def came_to(row):
    """Give a row as the tables of cases have it."""
    if isinstance(row.link, InvalidLinkError):
        return {"row": row.number, "problem": str(row.link)}
    return {"row": row.number, "link": row.link}


def wanted(line):
    record = json.loads(line)
    number = record.pop("row")
    if "problem" in record:
        return {"row": number, **record}
    return {"row": number, "link": draft_of(record)}


@pytest.mark.parametrize("expected", sorted(FILES.glob("*.*.jsonl")), ids=lambda path: path.stem)
def test_every_row_of_a_file_gives_a_link_or_says_what_is_wrong(expected):
    file = expected.with_suffix("")
    rows = [came_to(row) for row in read_links(file.read_bytes(), file.name)]
    assert rows == [wanted(line) for line in expected.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("case", yaml.safe_load((FILES / "unreadable.yml").read_text("utf-8")), ids=str)
def test_a_file_that_cannot_be_read_says_why_and_what_to_do(case):
    content = base64.b64decode(case["base64"]) if "base64" in case else case["text"].encode()
    with pytest.raises(UnreadableFileError) as error:
        list(read_links(content, case["name"]))
    assert str(error.value) == case["says"]


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
) | st.sampled_from(
    ['"', '""', '"a"', "[1]", "{}", "null", " x ", "a,b", "a;b", "\r", "\n", "\r\n", "=1+1", "true", "7"]
)
urls = st.none() | st.sampled_from(["", " ", "https://a.example/ü?x=1&y=%2F", "market://details?id=a.b", '"'])
moments = st.none() | st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 (hypothesis adds the zone)
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC) | st.integers(-720, 840).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
numbers = st.none() | st.integers(0, 5_256_000)
optional = st.none() | texts


@st.composite
def links(draw):
    own = {
        "id": draw(st.integers(0, 10**18 - 1)),
        "target_url": draw(st.dictionaries(texts, urls.filter(lambda url: url != '"'), max_size=4)),
        "slug": draw(st.none() | st.from_regex(r"[A-Z0-9_-]{1,64}", fullmatch=True)),
        "mode": draw(st.sampled_from(["redirect", "proxy"])),
        "user_id": draw(st.none() | st.integers(-(10**18) + 1, 10**18 - 1)),
        "schemes": draw(st.lists(texts, max_size=3)),
        "tags": draw(st.lists(texts, max_size=3)),
        "starts_at": draw(moments),
        "expires_at": draw(moments),
        **{name: draw(st.booleans()) for name in ("forward_query", "store_referrer", "enabled")},
        **{name: draw(numbers) for name in ("attribution_window_fingerprint", "attribution_window_idfa")},
    }
    rest = {name: draw(optional) for name in Link.__struct_fields__ if name not in own}
    return Link(**own, **rest)


@given(st.lists(links(), max_size=4, unique_by=lambda link: link.id))
def test_what_is_exported_is_imported_as_it_was(originals):
    lines = "".join(f"{json_line(link)}\n" for link in originals)
    table = "".join(csv_lines(originals))
    assert [row.link for row in read_links(lines.encode(), "a.jsonl")] == originals
    assert [row.link for row in read_links(table.encode(), "a.csv")] == originals


@given(links())
def test_a_record_is_the_same_link_again(link):
    assert link_of(record_of(link)) == link
    assert link_of(json.loads(msgspec.json.encode(link))) == link


@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.jsonl", "a.json", "a"]))
def test_whatever_a_file_holds_it_is_read_or_refused(content, name):
    try:
        rows = list(read_links(content, name))
    except UnreadableFileError as error:
        assert str(error).startswith(name)
    else:
        assert all(isinstance(row.link, Link | InvalidLinkError) for row in rows)
