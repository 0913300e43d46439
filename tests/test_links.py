"""Campaign links: what is one, where the visitor goes, and how every process sees a change."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import asyncpg
import pytest
import yaml
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from processes import SCRIPTS, healthy, running
from structlog.testing import capture_logs

from embedded.ports import free_port
from embedded.postgres import running_postgres
from links.directory import LinkDirectory
from links.link import UNNUMBERED, InvalidLinkError, draft_of, link_from_json, link_of, state_of
from links.migrate import LINK_STEPS
from links.rows import BEGINNING
from links.schema import METADATA
from links.store import PAGE, LinkStore, LinkStoreError
from links.table import LinkTable

DATA = Path(__file__).parent / "data"


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request, tmp_path):
    """Give a database of the test's own, with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/links/onward.db"
    return await new_database(request.getfixturevalue("postgres_url"))


async def new_database(postgres_url):
    name = f"links_{time.time_ns()}"
    await sql(postgres_url, f"CREATE DATABASE {name}")
    return postgres_url.rpartition("/")[0] + f"/{name}"


async def sql(database_url, *statements):
    """Do what some other program does with the database."""
    if database_url.startswith("sqlite"):
        path = Path(database_url.removeprefix("sqlite:///"))
        path.parent.mkdir(exist_ok=True)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.executescript(statement)
        return
    connection = await asyncpg.connect(database_url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@contextlib.asynccontextmanager
async def opened(database_url):
    store = LinkStore(database_url)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(database_url):
    async with opened(database_url) as store:
        await store.prepare()
        yield store


async def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "that took too long"
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def kept_fresh(directory):
    refreshing = asyncio.create_task(directory.keep_fresh())
    try:
        yield
    finally:
        refreshing.cancel()
        await asyncio.wait({refreshing})


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
        ({"id": 1, "campaign": "a\0"}, "campaign"),
        ({"id": 1, "tags": ["\ud800"]}, "tags"),
        ({"id": 1, "target_url": {"\udfff": None}}, "target_url"),
        ({"id": 1, "user_id": 10**18}, "user_id"),
    ],
    ids=str,
)
def test_a_record_that_is_no_link_names_the_field(record, field):
    with pytest.raises(InvalidLinkError) as error:
        link_of(record)
    assert error.value.field == field
    assert str(error.value).startswith(f"{field}: ")


@pytest.mark.parametrize("text", ["{", "[" * 100_000], ids=["broken", "deep"])
def test_text_that_is_no_json_is_no_link(text):
    with pytest.raises(InvalidLinkError, match="this is no JSON"):
        link_from_json(text)


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
    here = LinkDirectory(store)
    await here.refresh()
    await store.save([link_of({"id": 1, "slug": "old"}), link_of({"id": 2, "slug": "b"})])
    await here.refresh()
    assert here.by_slug("old").id == 1
    await store.save([link_of({"id": 1, "slug": "new"})])
    await store.delete([2])
    await here.refresh()
    assert (here.by_slug("old"), here.by_slug("b"), here.by_id(2)) == (None, None, None)
    assert here.by_slug("new") is here.by_id(1)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([None, "a", "b", "c"]), st.booleans())))
def test_a_table_finds_what_was_put_last(steps):
    table, expected = LinkTable(), {}
    for link_id, slug, drop in steps:
        if drop:
            table.drop(link_id)
            expected.pop(link_id, None)
        else:
            # Who takes a slug takes it from the one that had it, which changes later in the same page.
            for other in [each for each in expected.values() if slug and each.slug == slug]:
                expected[other.id] = link_of({"id": other.id})
                if other.id != link_id:
                    table.put(link_of({"id": link_id, "slug": slug}))
                    table.put(expected[other.id])
            expected[link_id] = link_of({"id": link_id, "slug": slug, "tags": ["x"]})
            table.put(expected[link_id])
        assert len(table) == len(expected)
        for number in range(5):
            assert table.by_id(number) == expected.get(number)
        by_slug = {link.slug: link for link in expected.values() if link.slug}
        for name in ("a", "b", "c"):
            assert table.by_slug(name) == by_slug.get(name)


def test_a_link_that_is_asked_for_again_is_not_unpacked_again():
    table = LinkTable()
    for number in range(1_500):
        table.put(link_of({"id": number}))
    assert all(table.by_id(number) == link_of({"id": number}) for number in range(1_500))
    assert table.by_id(7) is table.by_id(7)
    table.put(link_of({"id": 7, "campaign": "new"}))
    assert table.by_id(7).campaign == "new"


async def test_a_change_keeps_what_is_not_named(store):
    await store.save([link_of({"id": 1, "slug": "a", "campaign": "x", "enabled": False})])
    link = await store.assign({"id": 1, "campaign": None, "network": "n"})
    assert link == link_of({"id": 1, "slug": "a", "network": "n", "enabled": False})
    assert await store.find("a") == await store.find("1") == link
    assert await store.assign({"id": 2, "ad": "y"}) == link_of({"id": 2, "ad": "y"})
    for record, problem in (
        ({"id": 2, "slug": "a"}, "`a` is in use by link 1"),
        ({"id": 2, "slogan": "x"}, "slogan: a link has no such field"),
        ({"campaign": "x"}, "id: "),
    ):
        with pytest.raises(InvalidLinkError, match=problem):
            await store.assign(record)
    assert await store.find("2") == link_of({"id": 2, "ad": "y"})


async def test_digits_are_a_number_first_and_a_slug_else(store):
    await store.save([link_of({"id": 1, "slug": "2"}), link_of({"id": 2, "slug": "2025"})])
    assert (await store.find("2")).id == 2
    assert (await store.find("2025")).id == 2
    assert [await store.find(name) for name in ("3", "", "9" * 30, "²")] == [None] * 4


async def test_a_new_link_gets_the_next_number_and_no_number_comes_twice(store):
    await store.save([link_of({"id": 41, "slug": "a"})])
    await store.delete([41])
    drafts = [draft_of({"slug": f"s{number}"}) for number in range(20)]
    assert {draft.id for draft in drafts} == {UNNUMBERED}
    saved = await asyncio.gather(*(store.save([draft], replace=False) for draft in drafts))
    assert sorted(links[0].id for links in saved) == list(range(42, 62))
    with pytest.raises(InvalidLinkError, match="`s3` is in use"):
        await store.save([draft_of({"slug": "s3"})], replace=False)
    with pytest.raises(InvalidLinkError, match="link 42 is there already"):
        await store.save([link_of({"id": 42})], replace=False)
    again = (await store.save([draft_of({"slug": "s3", "campaign": "x"})]))[0]
    assert again.campaign == "x"
    assert again.id in range(42, 62)
    await store.save([link_of({"id": 10**18 - 1})])
    with pytest.raises(InvalidLinkError, match="no higher number left"):
        await store.save([draft_of({})])


async def test_links_may_swap_their_slugs_but_not_share_one(store):
    await store.save([link_of({"id": 1, "slug": "a"}), link_of({"id": 2, "slug": "b"})])
    await store.save([link_of({"id": 1, "slug": "b"}), link_of({"id": 2, "slug": "a"})])
    assert (await store.find("a")).id == 2
    plan = await store.plan(
        [draft_of({"slug": "c"}), link_of({"id": 4, "slug": "c"}), link_of({"id": 1}), link_of({"id": 1})]
    )
    assert [str(problem) for problem in plan.problems.values()] == [
        "id: link 4 is given twice" if plan.links[0].id == 4 else "slug: `c` is in use by link 5",
        "id: link 1 is given twice",
    ]


async def test_the_clicks_of_a_link_outlive_its_change(store, database_url):
    await store.save([link_of({"id": 1})])
    await sql(database_url, "UPDATE links SET total_clicks = 7")
    await store.save([link_of({"id": 1, "campaign": "x"})])
    async with store._engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT total_clicks FROM links")).scalar() == 7


async def test_a_link_that_changes_while_the_pages_are_read_is_seen(store):
    await store.save([link_of({"id": number}) for number in range(10)])
    seen, position = {}, BEGINNING
    while position is not None:
        page, position = await store.page(position, 4)
        seen |= {link.id: link for link in page.links}
        if len(seen) == 4:
            await store.save([link_of({"id": 2, "campaign": "x"}), link_of({"id": 9, "campaign": "y"})])
    assert len(seen) == 10
    assert (seen[2].campaign, seen[9].campaign) == ("x", "y")


async def test_a_row_that_is_no_link_is_named_and_hides_no_other(store, database_url):
    await store.save([link_of({"id": number, "slug": f"s{number}"}) for number in range(3)])
    directory = LinkDirectory(store)
    await directory.refresh()
    await sql(
        database_url,
        "UPDATE links SET target_url = '7', revision = 2 WHERE id = 1",
        "UPDATE links SET campaign = 'by hand', mode = NULL, tags = NULL, revision = 2 WHERE id = 2",
        "UPDATE links_revision SET last = 2",
    )
    with capture_logs() as logs:
        await directory.refresh()
    assert [(entry["event"], entry["ids"]) for entry in logs] == [("links_unreadable", [1])]
    assert directory.by_slug("s1") == link_of({"id": 1, "slug": "s1"})
    assert directory.by_id(2).campaign == "by hand"


# The tables.


async def test_the_migrations_end_where_the_schema_is(store):
    def difference(connection):
        context = MigrationContext.configure(connection, opts={"version_table": LINK_STEPS.version_table})
        return compare_metadata(context, METADATA)

    async with store._engine.connect() as connection:
        assert await connection.run_sync(difference) == []
    config = Config()
    config.set_main_option("script_location", "links:migrations")
    steps = [step.revision for step in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(steps)) == LINK_STEPS.names


async def test_a_database_older_than_migrations_keeps_its_links(database_url):
    await sql(database_url, (DATA / "links" / "before_migrations.sql").read_text("utf-8"))
    async with opened(database_url) as store:
        await store.prepare()
        await store.prepare()
        assert await store.version() == LINK_STEPS.names[-1]
        await store.assign({"id": 46, "slug": "old"})
        assert (await store.find("old")).target("ios") == "https://old.example/"
        assert await store.last_revision() == 2


async def test_a_database_of_a_newer_release_is_used_as_it_is(store, database_url):
    await sql(database_url, "UPDATE links_version SET version_num = '9999'")
    await store.prepare()
    await store.save([link_of({"id": 1})])
    assert await store.version() == "9999"


async def test_a_migration_that_fails_leaves_nothing_half_done(database_url):
    await sql(database_url, "CREATE TABLE other (slug TEXT)", "CREATE INDEX ix_links_slug ON other (slug)")
    async with opened(database_url) as store:
        with pytest.raises(LinkStoreError, match=r"the tables of links cannot be made: .*ix_links_slug"):
            await store.prepare()
        assert await store.version() is None
        with pytest.raises(LinkStoreError, match="links"):
            await store.last_revision()
        await sql(database_url, "DROP TABLE other")
        await store.prepare()
        assert await store.last_revision() == 0


async def test_tables_are_made_once_however_the_steps_of_many_interleave(database_url):
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(database_url)) for _ in range(8)]
        await asyncio.gather(*(store.prepare() for store in stores))
        assert {await store.last_revision() for store in stores} == {0}


async def test_a_new_file_that_another_process_writes_is_waited_for(tmp_path):
    other = sqlite3.connect(tmp_path / "onward.db", isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")  # SQLite refuses the write-ahead log at once meanwhile
        asyncio.get_running_loop().call_later(0.2, other.rollback)
        async with opened(f"sqlite:///{tmp_path}/onward.db") as store:
            await store.prepare()
            assert await store.last_revision() == 0


async def test_many_processes_may_begin_at_once_on_an_empty_database(database_url):
    environ = os.environ | {"DATABASE_URL": database_url}
    argv = [str(SCRIPTS / "collector"), "links", "migrate"]
    processes = [
        await asyncio.create_subprocess_exec(*argv, env=environ, stderr=subprocess.PIPE) for _ in range(8)
    ]
    said = [(await process.communicate())[1] for process in processes]
    assert ([process.returncode for process in processes], said) == ([0] * 8, [b""] * 8)
    async with opened(database_url) as store:
        assert (await store.version(), await store.last_revision()) == (LINK_STEPS.names[-1], 0)


def test_a_start_with_nothing_to_migrate_does_not_import_alembic(tmp_path):
    script = (
        "import asyncio, sys\n"
        "from links.store import LinkStore\n"
        f"asyncio.run(LinkStore('sqlite:///{tmp_path}/o.db').prepare())\n"
        "print('alembic' in sys.modules)"
    )
    said = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
        for _ in range(2)
    ]
    assert said == ["True\n", "False\n"]


# What a database may do.


@pytest.mark.parametrize("url", ["", "mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "://secret"])
def test_a_database_that_is_none_of_ours_is_refused_without_its_password(url):
    with pytest.raises(LinkStoreError, match="DATABASE_URL is no") as error:
        LinkStore(url)
    assert "secret" not in str(error.value)


async def test_a_database_that_cannot_be_used_says_so_in_one_line(tmp_path, postgres_url):
    (tmp_path / "file").write_text("no database")
    for url in (
        f"sqlite:///{tmp_path}/file",
        f"sqlite:///{tmp_path}/file/o.db",
        "postgres://127.0.0.1:1/d",
        postgres_url.rpartition("/")[0] + "/missing",
    ):
        async with opened(url) as broken:
            with pytest.raises(LinkStoreError, match=r"cannot be (used|made): .") as error:
                await broken.prepare()
            assert "\n" not in str(error.value)


async def test_a_platforms_own_postgres_url_is_understood(postgres_url):
    url = (await new_database(postgres_url)).replace("postgresql://", "postgres://", 1)
    for options in ("?sslmode=prefer", "?channel_binding=prefer&sslmode=disable&application_name=x"):
        async with opened(url + options) as store:
            assert await store.version() is None
    async with opened(f"{url}?sslmode=require") as store:
        with pytest.raises(LinkStoreError, match="SSL"):
            await store.version()


async def test_a_refresh_that_fails_takes_no_link_away(store, database_url):
    await store.save([link_of({"id": 1, "slug": "a"})])
    directory = LinkDirectory(store)
    await directory.refresh()
    for accident in ("DELETE FROM links_revision", "DROP TABLE links", "DROP TABLE links_revision"):
        await sql(database_url, accident)
        with pytest.raises(LinkStoreError, match="links"):
            await directory.refresh()
    assert directory.by_slug("a") == link_of({"id": 1, "slug": "a"})


async def test_an_emptied_database_takes_no_link_away_and_says_so_once(store, database_url):
    await store.save([link_of({"id": number, "slug": f"s{number}"}) for number in range(3)])
    directory = LinkDirectory(store)
    await directory.refresh()
    await sql(database_url, "DELETE FROM links", "UPDATE links_revision SET last = 0")
    with capture_logs() as logs:
        await directory.refresh()
        await directory.refresh()
    assert [(entry["event"], entry["links_still_served"]) for entry in logs] == [
        ("links_database_emptied", 3)
    ]
    await store.save([link_of({"id": 9, "slug": "new"}), link_of({"id": 1, "slug": "changed"})])
    await directory.refresh()
    assert len(directory) == 4
    assert (directory.by_slug("new").id, directory.by_slug("changed").id, directory.by_slug("s0").id) == (
        9,
        1,
        0,
    )


async def test_a_counter_that_was_lost_goes_on_behind_the_links(store, database_url):
    for campaign in "abc":
        await store.save([link_of({"id": 1, "campaign": campaign})])
    await sql(database_url, "DELETE FROM links_revision")
    await store.save([link_of({"id": 2})])
    assert await store.last_revision() == 4


async def test_a_database_that_went_back_is_served_as_it_is_and_logged(store, database_url, tmp_path):
    await store.save([link_of({"id": 1, "slug": "a"}), link_of({"id": 2, "slug": "b"})])
    if database_url.startswith("sqlite"):
        path = Path(database_url.removeprefix("sqlite:///"))
        await sql(database_url, "PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(path, tmp_path / "backup.db")
    else:
        await sql(database_url, "CREATE TABLE backup AS SELECT * FROM links")
    directory = LinkDirectory(store)
    await directory.refresh()
    await store.save([link_of({"id": 2, "slug": "c"}), link_of({"id": 3, "slug": "d"})])
    await store.delete([1])
    await directory.refresh()
    assert [directory.by_slug(slug) is None for slug in "abcd"] == [True, True, False, False]
    if database_url.startswith("sqlite"):
        await sql(database_url, "PRAGMA wal_checkpoint(TRUNCATE)")
        for name in ("onward.db-wal", "onward.db-shm"):
            path.with_name(name).unlink(missing_ok=True)
        (tmp_path / "backup.db").rename(path)
    else:
        await sql(
            database_url,
            "BEGIN; DELETE FROM links; INSERT INTO links SELECT * FROM backup;"
            "UPDATE links_revision SET last = 1; COMMIT",
        )
    with capture_logs() as logs:
        await directory.refresh()
        await directory.refresh()
    assert [directory.by_slug(slug) is None for slug in "abcd"] == [False, False, True, True]
    assert [entry["event"] for entry in logs] == ["links_database_went_back"]
    assert (logs[0]["from_revision"], logs[0]["to_revision"], logs[0]["links"]) == (3, 1, 2)
    await store.save([link_of({"id": 3, "slug": "d"})])
    await directory.refresh()
    assert directory.by_slug("d").id == 3


async def test_a_large_change_arrives_whole(store):
    directory = LinkDirectory(store)
    await directory.refresh()
    await store.save([link_of({"id": number}) for number in range(2 * PAGE)])
    await directory.refresh()
    assert len(directory) == 2 * PAGE


async def test_a_locked_table_is_given_up_and_comes_back(postgres_url):
    url = await new_database(postgres_url)
    async with opened(url) as store, opened(url) as other:
        await store.prepare()
        await store.save([link_of({"id": 1})])
        directory = LinkDirectory(store)
        await directory.refresh()
        directory._query_seconds = 0.3
        locker = await asyncpg.connect(url)
        async with kept_fresh(directory):
            async with locker.transaction():
                await locker.execute("LOCK TABLE links, links_revision IN ACCESS EXCLUSIVE MODE")
                await until(lambda: directory.trouble)
                assert directory.by_id(1) == link_of({"id": 1})
            await until(lambda: directory.trouble is None)
            await other.save([link_of({"id": 2})])
            await until(lambda: directory.by_id(2))
        await locker.close()


def family(pid):
    """Give a process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())]


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="looks for children in /proc: run it on Linux"
)
async def test_a_database_that_hangs_or_dies_is_given_up_and_comes_back(open_directory):
    folder, port = open_directory / "mortal", free_port()
    with running_postgres(folder, port=port) as url:
        store = LinkStore(url)
        await store.prepare()
        await store.save([link_of({"id": 1})])
        directory = LinkDirectory(store)
        await directory.refresh()
        directory._query_seconds = 0.3
        refreshing = kept_fresh(directory)
        await refreshing.__aenter__()
        postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        stopped = family(postmaster)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            await until(lambda: directory.trouble)
            assert directory.by_id(1)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        await until(lambda: directory.trouble is None)
        await sql(url, "UPDATE links SET campaign = 'x', revision = 2", "UPDATE links_revision SET last = 2")
        await until(lambda: directory.by_id(1).campaign == "x")
    await until(lambda: directory.trouble)
    assert directory.by_id(1)
    with running_postgres(folder, port=port):
        await until(lambda: directory.trouble is None)
        await store.save([link_of({"id": 2})])
        await until(lambda: directory.by_id(2))
        await refreshing.__aexit__(None, None, None)
        await store.close()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args):
        return None


def click(port):
    """Give the status of a click and where it leads."""
    try:
        with urllib.request.build_opener(_Stay).open(
            f"http://127.0.0.1:{port}/click/1/go", timeout=5
        ) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Location"]


async def test_a_redirect_needs_no_database(redis, redis_server, open_directory, tmp_path):
    target = "https://shop.example/"
    folder, port, database_port = open_directory / "away", free_port(), free_port()
    environ = {
        "PORT": port,
        "HOST": "127.0.0.1",
        "REDIS_URL": redis_server.url,
        "JOURNAL_DIR": tmp_path / "journal",
    }
    with running_postgres(folder, port=database_port) as url:
        async with opened(url) as store:
            await store.prepare()
            await store.save([link_of({"id": 1, "target_url": {"default": target}})])
        serving = running(
            tmp_path, "collector", "serve", answers=lambda _child: healthy(port), DATABASE_URL=url, **environ
        )
        child = serving.__enter__()
        assert click(port) == (307, target)
        locker = await asyncpg.connect(url)
        await locker.execute("BEGIN; LOCK TABLE links, links_revision IN ACCESS EXCLUSIVE MODE")
        assert await asyncio.to_thread(click, port) == (307, target)
        await locker.close()
    await until(lambda: "links_database_away" in child.program.log.read_text("utf-8"))
    assert click(port) == (307, target)
    with running_postgres(folder, port=database_port) as url:
        await sql(
            url,
            """UPDATE links SET target_url = '{"default": "https://new.example/"}', revision = 2""",
            "UPDATE links_revision SET last = 2",
        )
        await until(lambda: click(port) == (307, "https://new.example/"))
    serving.__exit__(None, None, None)
