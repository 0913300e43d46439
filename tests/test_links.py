"""Campaign links: what is one, where the visitor goes, and how every process sees a change."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
import yaml

from links.directory import LinkDirectory
from links.link import InvalidLinkError, link_from_json, link_of, state_of
from links.store import LinkStore, LinkStoreError

DATA = Path(__file__).parent / "data"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/links/onward.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(database_url):
    store = LinkStore(database_url)
    await store.prepare()
    everything = await store.changes_since(0)
    await store.delete(link.id for link in everything.links)
    yield store
    await store.close()


@pytest.mark.parametrize("case", yaml.safe_load((DATA / "targets.yml").read_text("utf-8")), ids=str)
def test_the_target_is_the_platforms_own_else_the_default_else_the_fallback(case):
    assert link_of({"id": 1, "target_url": case["target_url"]}).target(case["platform"]) == case["target"]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ([], "record"),
        ("link", "record"),
        ({}, "id"),
        ({"id": "1"}, "id"),
        ({"id": -1}, "id"),
        ({"id": 10**18}, "id"),
        ({"id": 1, "capmaign": "x"}, "capmaign"),
        ({"id": 1, "campaign": 5}, "campaign"),
        ({"id": 1, "target_url": "https://a.example"}, "target_url"),
        ({"id": 1, "target_url": {"ios": "/relative"}}, "target_url[ios]"),
        ({"id": 1, "target_url": {"ios": "//evil.example"}}, "target_url[ios]"),
        ({"id": 1, "target_url": {"ios": "javascript:alert(1)"}}, "target_url[ios]"),
        ({"id": 1, "target_url": {"ios": "JavaScript:alert(1)"}}, "target_url[ios]"),
        ({"id": 1, "target_url": {"ios": "https:///path"}}, "target_url[ios]"),
        ({"id": 1, "target_url": {"ios": "https://[broken"}}, "target_url[ios]"),
        ({"id": 1, "target_url": {"ios": "https://a.example/\r\nSet-Cookie: x"}}, "target_url[ios]"),
        ({"id": 1, "target_url": {"ios": "myapp://x"}}, "target_url[ios]"),
        ({"id": 1, "schemes": ["Data"]}, "schemes"),
        ({"id": 1, "slug": "check"}, "slug"),
        ({"id": 1, "slug": "apple-x"}, "slug"),
        ({"id": 1, "slug": "a/b"}, "slug"),
        ({"id": 1, "slug": ""}, "slug"),
        ({"id": 1, "mode": "frame"}, "mode"),
        ({"id": 1, "attribution_window_idfa": -5}, "attribution_window_idfa"),
        ({"id": 1, "starts_at": "tomorrow"}, "starts_at"),
        ({"id": 1, "starts_at": "2026-01-31T12:00:00"}, "starts_at"),
    ],
    ids=str,
)
def test_a_record_that_is_no_link_names_the_field(record, field):
    with pytest.raises(InvalidLinkError) as error:
        link_of(record)
    assert error.value.field == field
    assert str(error.value).startswith(f"{field}: ")


def test_text_that_is_no_json_is_no_link():
    with pytest.raises(InvalidLinkError, match="this is no JSON"):
        link_from_json("{")


def test_a_schemes_own_target_is_kept_byte_for_byte():
    target = "myapp://a?b=%2F&c"
    assert link_of({"id": 1, "schemes": ["myapp"], "target_url": {"ios": target}}).target("ios") == target


def test_a_link_works_from_its_start_to_its_end_while_enabled():
    link = link_of({"id": 1, "starts_at": "2026-01-01T00:00:00Z", "expires_at": "2026-02-01T00:00:00+01:00"})
    assert state_of(link, 1767225599999) == "not_started"
    assert state_of(link, 1767225600000) == "live"
    assert state_of(link, 1769900399999) == "live"
    assert state_of(link, 1769900400000) == "expired"
    assert state_of(link_of({"id": 1, "enabled": False}), 0) == "disabled"


async def test_links_are_kept_whole_and_changed_by_id(store):
    link = link_of(
        {
            "id": 46,
            "slug": "winter",
            "target_url": {"ios": "market://details?id=a.b&referrer=utm_source%3Dgoogle", "default": ""},
            "starts_at": "2026-01-01T00:00:00+02:00",
            "tags": ["ü", "b"],
            "schemes": ["myapp"],
            "store_referrer": True,
        }
    )
    await store.save([link, link_of({"id": 47})])
    assert sorted((await store.changes_since(0)).links, key=lambda one: one.id) == [link, link_of({"id": 47})]
    changed = link_of({"id": 46, "campaign": "new"})
    await store.save([changed])
    assert changed in (await store.changes_since(0)).links


async def test_many_processes_may_begin_at_once_on_an_empty_database(tmp_path, postgres_url):
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE DATABASE empty")
    await connection.close()
    for url in (f"sqlite:///{tmp_path}/new.db", postgres_url.rpartition("/")[0] + "/empty"):
        stores = [LinkStore(url) for _ in range(8)]
        await asyncio.gather(*(store.prepare() for store in stores))
        assert (await stores[0].changes_since(0)).revision == 0
        for store in stores:
            await store.close()


async def test_a_slug_in_use_is_refused_and_nothing_is_saved(store):
    await store.save([link_of({"id": 1, "slug": "a"})])
    with pytest.raises(InvalidLinkError, match="`a` is in use by link 1"):
        await store.save([link_of({"id": 2}), link_of({"id": 3, "slug": "a"})])
    assert [link.id for link in (await store.changes_since(0)).links] == [1]
    await store.delete([1])
    await store.save([link_of({"id": 3, "slug": "a"})])


async def test_only_what_changed_is_asked_for(store):
    await store.save([link_of({"id": number}) for number in range(2500)])
    before = await store.changes_since(0)
    assert len(before.links) == 2500
    nothing = await store.changes_since(before.revision)
    assert (nothing.links, nothing.deleted, nothing.revision) == ([], [], before.revision)
    await store.save([link_of({"id": 7, "campaign": "x"})])
    await store.delete([8, 4711])
    after = await store.changes_since(before.revision)
    assert ([link.id for link in after.links], after.deleted) == ([7], [8])


async def test_another_process_sees_a_change_and_a_deletion(store, database_url):
    here = LinkDirectory(LinkStore(database_url))
    await here.refresh()
    await store.save([link_of({"id": 1, "slug": "old"}), link_of({"id": 2, "slug": "b"})])
    await here.refresh()
    assert here.by_slug("old").id == 1
    await store.save([link_of({"id": 1, "slug": "new"})])
    await store.delete([2])
    await here.refresh()
    assert (here.by_slug("old"), here.by_slug("b"), here.by_id(2)) == (None, None, None)
    assert here.by_slug("new") is here.by_id(1)
    await here._store.close()


async def test_a_database_that_cannot_be_used_says_so_and_takes_no_link_away(store, tmp_path):
    (tmp_path / "file").write_text("no database")
    broken = LinkStore(f"sqlite:///{tmp_path}/file")
    with pytest.raises(LinkStoreError, match="cannot be used"):
        await broken.prepare()
    await store.save([link_of({"id": 1})])
    directory = LinkDirectory(store)
    await directory.refresh()
    directory._store = broken
    refreshing = asyncio.create_task(directory.keep_fresh())
    await asyncio.wait({refreshing}, timeout=0.1)
    refreshing.cancel()
    assert directory.by_id(1) == link_of({"id": 1})
    await broken.close()
