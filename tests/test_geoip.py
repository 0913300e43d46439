"""Where an address is: as MaxMind's own reader says, from any text, from any file, under any replacement."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import geoip2.database
import maxminddb
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from geoip.database import SHIPPED, Database, DatabaseError, open_database
from geoip.fresh import keep_fresh
from geoip.place import NOWHERE, Place
from process.tasks import end

DATA = Path(__file__).parent / "data" / "geoip"
CITY = DATA / "GeoIP2-City-Test.mmdb"
COUNTRY = DATA / "GeoIP2-Country-Test.mmdb"
PLACES = [
    pytest.param(
        SHIPPED if table == "shipped" else DATA / table, address, Place(*place), id=f"{table}-{address}"
    )
    for table, places in yaml.safe_load((DATA / "places.yml").read_text(encoding="utf-8")).items()
    for address, place in places.items()
]


# What a table says.


@pytest.mark.parametrize(("path", "address", "place"), PLACES)
def test_an_address_is_where_the_table_says(path, address, place):
    assert open_database(path).place_of(address) == place


@pytest.mark.parametrize(
    ("table", "ask"),
    [
        ("GeoIP2-City-Test.mmdb", geoip2.database.Reader.city),
        ("GeoLite2-City-Test.mmdb", geoip2.database.Reader.city),
        ("GeoIP2-Enterprise-Test.mmdb", geoip2.database.Reader.enterprise),
        ("GeoIP2-Country-Test.mmdb", geoip2.database.Reader.country),
    ],
)
def test_every_network_of_a_maxmind_table_reads_as_maxminds_own_library_reads_it(table, ask):
    database = open_database(DATA / table)
    with (
        maxminddb.open_database(DATA / table, maxminddb.MODE_MEMORY) as networks,
        geoip2.database.Reader(DATA / table, mode=maxminddb.MODE_MEMORY) as theirs,
    ):
        addresses = [str(network[0]) for network, _ in networks]
        assert len(addresses) > 20
        for address in addresses:
            assert database.place_of(address) == place_by_geoip2(ask(theirs, address)), address


def place_by_geoip2(answer):
    subdivisions = getattr(answer, "subdivisions", ())
    city = answer.city.names.get("en") if hasattr(answer, "city") else None
    return Place(answer.country.iso_code, subdivisions[0].iso_code if subdivisions else None, city)


# Any text.


@pytest.mark.parametrize("path", [SHIPPED, CITY, DATA / "coded-city.mmdb"], ids=lambda path: path.name)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-",
        "unknown",
        "81.2.69",
        "81.2.69.160 ",
        " 81.2.69.160",
        "81.2.69.160\n",
        "81.2.69.160\0",
        "81.2.69.160:443",
        "81.2.69.0160",
        "0x51.2.69.160",
        "1359103392",
        "81.2.69.256",
        "８1.2.69.160",
        "[2001:218::1]",
        "2001:218::1%eth0",
        "2001:218::1::",
        ":",
        "\ud800",
        "9" * 100_000,
    ],
)
def test_what_is_no_address_is_nowhere(path, text):
    assert open_database(path).place_of(text) == NOWHERE


TABLES = [
    open_database(path) for path in (None, *sorted(DATA.glob("*City*.mmdb")), *DATA.glob("coded-*.mmdb"))
]
ADDRESSES = st.ip_addresses().map(str)


@given(st.sampled_from(TABLES), st.one_of(st.text(), ADDRESSES, st.text("0123456789abcdef:.%/[] ")))
def test_any_text_has_a_place_or_is_nowhere(database, text):
    assert isinstance(database.place_of(text), Place)


@given(st.ip_addresses(v=6))
def test_one_address_is_in_one_place_however_it_is_written(address):
    (database,) = (table for table in TABLES if table.path == SHIPPED)
    assert database.place_of(str(address)) == database.place_of(address.exploded.upper())


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_mapped_into_ipv6_is_where_the_ipv4_address_is(address):
    for database in TABLES:
        assert database.place_of(f"::ffff:{address}") == database.place_of(str(address))


# Any file.


def test_a_table_says_what_it_is_and_how_old():
    database = open_database(CITY)
    assert (database.path, database.database_type, database.credit) == (CITY, "GeoIP2-City", None)
    with maxminddb.open_database(CITY, maxminddb.MODE_MEMORY) as reader:
        assert database.built == datetime.fromtimestamp(reader.metadata().build_epoch, UTC)
    assert str(database) == f"{CITY} (GeoIP2-City, built {database.built:%Y-%m-%d})"


def test_the_shipped_table_names_its_maker():
    database = open_database()
    assert database.path == SHIPPED
    assert "DB-IP" in database.credit


def test_the_shipped_table_is_the_one_its_readme_speaks_of():
    digest = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert digest in (SHIPPED.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("missing.mmdb", None, "cannot be read (No such file or directory)"),
        ("empty.mmdb", b"", "is damaged or no MaxMind-format file"),
        ("page.mmdb", b"<html>404</html>" * 1000, "is damaged or no MaxMind-format file"),
        ("truncated.mmdb", CITY.read_bytes()[:-1000], "is damaged or no MaxMind-format file"),
        ("asn.mmdb", (DATA / "GeoLite2-ASN-Test.mmdb").read_bytes(), "(GeoLite2-ASN) does not say where"),
    ],
)
def test_a_file_that_is_no_table_of_places_is_refused_in_one_sentence_with_the_cure(
    tmp_path, name, content, complaint
):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatabaseError) as refusal:
        open_database(path)
    assert str(path) in str(refusal.value)
    assert complaint in str(refusal.value)
    assert "GEOIP_DB" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(st.integers(0, CITY.stat().st_size - 1))
def test_a_table_cut_short_anywhere_is_refused(tmp_path_factory, length):
    path = written(tmp_path_factory, CITY.read_bytes()[:length])
    with pytest.raises(DatabaseError):
        open_database(path)


@given(
    st.lists(
        st.tuples(st.integers(0, CITY.stat().st_size - 1), st.integers(0, 255)), min_size=1, max_size=200
    )
)
def test_a_damaged_table_is_refused_or_answers_and_nothing_else(tmp_path_factory, damage):
    content = bytearray(CITY.read_bytes())
    for position, byte in damage:
        content[position] = byte
    path = written(tmp_path_factory, content)
    try:
        database = open_database(path)
    except DatabaseError:
        return
    for address in ("81.2.69.160", "2.125.160.216", "216.160.83.56", "89.160.20.112", "2001:218::1"):
        assert isinstance(database.place_of(address), Place)


def written(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "damaged.mmdb"
    path.write_bytes(content)
    return path


# Any replacement.


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.mmdb"
    replace(path, COUNTRY.read_bytes())
    return path


def replace(path, content):
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


LONDON, BRITAIN = Place("GB", "ENG", "London"), Place("GB", None, None)


def test_a_file_that_stays_is_not_read_again(table):
    database = Database(table)
    assert not database.reload_if_replaced()


def test_a_replaced_file_answers_from_the_next_look(table):
    database = Database(table)
    replace(table, CITY.read_bytes())
    assert database.place_of("81.2.69.160") == BRITAIN
    assert database.reload_if_replaced()
    assert database.place_of("81.2.69.160") == LONDON
    assert database.database_type == "GeoIP2-City"
    assert not database.reload_if_replaced()


@pytest.mark.parametrize(
    "content", [b"", CITY.read_bytes()[:-1000], (DATA / "GeoLite2-ASN-Test.mmdb").read_bytes()]
)
def test_a_broken_file_is_refused_once_and_the_old_table_goes_on(table, content):
    database = Database(table)
    replace(table, content)
    with pytest.raises(DatabaseError):
        database.reload_if_replaced()
    assert not database.reload_if_replaced()
    assert database.place_of("81.2.69.160") == BRITAIN
    replace(table, CITY.read_bytes())
    assert database.reload_if_replaced()
    assert database.place_of("81.2.69.160") == LONDON


def test_a_removed_file_is_told_of_once_and_the_old_table_goes_on(table):
    database = Database(table)
    table.unlink()
    with pytest.raises(DatabaseError):
        database.reload_if_replaced()
    assert not database.reload_if_replaced()
    assert database.place_of("81.2.69.160") == BRITAIN
    replace(table, COUNTRY.read_bytes())
    assert database.reload_if_replaced()


def test_a_file_overwritten_in_place_is_taken_when_it_is_whole(table):
    database = Database(table)
    content = CITY.read_bytes()
    with table.open("wb") as file:
        file.write(content[:9000])
        file.flush()
        assert database.place_of("81.2.69.160") == BRITAIN
        with pytest.raises(DatabaseError):
            database.reload_if_replaced()
        assert database.place_of("81.2.69.160") == BRITAIN
        file.write(content[9000:])
    assert database.reload_if_replaced()
    assert database.place_of("81.2.69.160") == LONDON


# While a process runs.


@asynccontextmanager
async def kept_fresh(path):
    """Give a table that is looked after, and what is logged of it."""
    database = Database(path)
    with capture_logs() as logs:
        looking = asyncio.create_task(keep_fresh(database, look_seconds=0.01))
        try:
            yield database, logs
            assert not looking.done()
        finally:
            await end({looking})


async def until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def events(logs):
    return [line["event"] for line in logs]


async def a_few_looks(database):
    """Wait until the file has been looked at again, three times."""
    before, looks = database.reload_if_replaced, []
    database.reload_if_replaced = lambda: looks.append(1) or before()
    await until(lambda: len(looks) > 3)
    database.reload_if_replaced = before


async def test_a_running_process_takes_a_replaced_file_and_says_so_once(table):
    async with kept_fresh(table) as (database, logs):
        replace(table, CITY.read_bytes())
        await until(lambda: database.place_of("81.2.69.160") == LONDON)
        await a_few_looks(database)
    assert events(logs) == ["geoip_reloaded"]
    assert logs[0]["table"] == str(database)


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda table: replace(table, CITY.read_bytes()[:-1000]), "is damaged"),
        (lambda table: os.truncate(table, 9000), "is damaged"),
        (lambda table: os.truncate(table, 0), "is damaged"),
        (lambda table: replace(table, b"<html>"), "is damaged"),
        (lambda table: replace(table, (DATA / "GeoLite2-ASN-Test.mmdb").read_bytes()), "does not say where"),
        (lambda table: table.unlink(), "cannot be read"),
        (lambda table: table.rename(table.with_suffix(".old")) and table.mkdir(), "cannot be read"),
    ],
    ids=["replaced by half", "truncated", "emptied", "a page", "another kind", "removed", "a folder"],
)
async def test_a_running_process_keeps_its_table_whatever_becomes_of_the_file(table, break_it, why):
    async with kept_fresh(table) as (database, logs):
        break_it(table)
        await until(lambda: logs)
        await a_few_looks(database)
        assert database.place_of("81.2.69.160") == BRITAIN
        assert [(line["event"], line["kept"]) for line in logs] == [
            ("geoip_refused", "GeoIP2-Country, 2026-02-04")
        ]
        assert why in logs[0]["why"]
        if table.is_dir():
            table.rmdir()
        replace(table, CITY.read_bytes())
        await until(lambda: database.place_of("81.2.69.160") == LONDON)
    assert events(logs) == ["geoip_refused", "geoip_reloaded"]


async def test_a_file_that_is_being_written_is_not_spoken_of(table):
    content = CITY.read_bytes()
    async with kept_fresh(table) as (database, logs):
        refusals, look = [], database.reload_if_replaced

        def write_and_look():
            # A piece more at each look, as a slow copy would.
            with table.open("r+b" if refusals else "wb") as file:
                file.seek(0, os.SEEK_END)
                file.write(content[file.tell() :][:4000])
            try:
                return look()
            except DatabaseError as error:
                refusals.append(error)
                raise

        database.reload_if_replaced = write_and_look
        await until(lambda: database.place_of("81.2.69.160") == LONDON)
    assert len(refusals) > 3
    assert events(logs) == ["geoip_reloaded"]


async def test_events_are_placed_all_the_while_the_file_is_replaced(table):
    async with kept_fresh(table) as (database, _):
        for content in (CITY, COUNTRY) * 5:
            expected = LONDON if content == CITY else BRITAIN
            replace(table, content.read_bytes())
            async with asyncio.timeout(20):
                while (place := database.place_of("81.2.69.160")) != expected:
                    assert place in (LONDON, BRITAIN)
                    await asyncio.sleep(0)


# By hand.


def geoip(*arguments, **environment):
    environment = {name: value for name, value in os.environ.items() if name != "GEOIP_DB"} | environment
    program = [sys.executable, "-c", "from geoip.cli import main; main()"]
    return subprocess.run(
        [*program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_lookup_shows_the_places_and_which_table_of_which_day_says_so():
    done = geoip("lookup", "81.2.69.160", "2001:218::1", "10.0.0.1", "--db", CITY)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["81.2.69.160", "GB", "ENG", "London"] in rows
    assert ["2001:218::1", "JP", "–", "–"] in rows
    assert ["10.0.0.1", "–", "–", "–"] in rows
    assert str(open_database(CITY)) in done.stdout


def test_lookup_asks_the_shipped_table_unless_told_otherwise_and_credits_it():
    done = geoip("lookup", "130.149.7.1")
    assert done.returncode == 0
    assert "DE" in done.stdout.split()
    assert "DB-IP" in done.stdout


def test_lookup_writes_one_json_object_a_line():
    done = geoip("lookup", "--json", "81.2.69.160", "10.0.0.1", GEOIP_DB=str(CITY))
    assert (done.returncode, done.stderr) == (0, "")
    first, second = map(json.loads, done.stdout.splitlines())
    built = open_database(CITY).built.strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"path": str(CITY), "type": "GeoIP2-City", "built": built}
    assert first == {
        "address": "81.2.69.160",
        "country": "GB",
        "region": "ENG",
        "city": "London",
        "database": about,
    }
    assert second == {"address": "10.0.0.1", "country": None, "region": None, "city": None, "database": about}


def test_db_on_the_command_line_wins_over_the_environment():
    done = geoip("lookup", "--json", "81.2.69.160", "--db", CITY, GEOIP_DB=str(COUNTRY))
    assert json.loads(done.stdout)["city"] == "London"


def test_what_is_no_address_is_wrong_use_said_in_one_sentence():
    done = geoip("lookup", "81.2.69.160", "localhost")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "'localhost' is not an IP address.\n")


def test_no_address_at_all_is_wrong_use():
    assert geoip("lookup").returncode == 2
    assert geoip().returncode == 2


def test_a_missing_table_fails_in_one_sentence(tmp_path):
    done = geoip("lookup", "81.2.69.160", GEOIP_DB=str(tmp_path / "none.mmdb"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "none.mmdb") in done.stderr


def test_an_empty_geoip_db_means_the_shipped_table():
    done = geoip("lookup", "--json", "130.149.7.1", GEOIP_DB="")
    assert json.loads(done.stdout)["database"]["path"] == str(SHIPPED)
