"""`geoip update` against a server that behaves as MaxMind's does, well and badly: a new table, or the old one."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import io
import os
import pty
import random
import ssl
import tarfile
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from processes import SCRIPTS

from geoip.archive import OTHERS_BYTES, ArchiveError, unpack
from geoip.database import open_database
from geoip.place import Place
from geoip.server import Bounds
from geoip.settings import GeoipSettings
from geoip.source import UpdateError, source_of
from geoip.update import update
from process.settings import SettingsError, read_settings

DATA = Path(__file__).parent / "data" / "geoip"
CITY = (DATA / "GeoLite2-City-Test.mmdb").read_bytes()
COUNTRY = (DATA / "GeoIP2-Country-Test.mmdb").read_bytes()
ASN = (DATA / "GeoLite2-ASN-Test.mmdb").read_bytes()
LONDON, BRITAIN = Place("GB", "ENG", "London"), Place("GB", None, None)
ACCOUNT, KEY = "123456", "aB3_secret-key"
AUTHORIZATION = f"Basic {base64.b64encode(f'{ACCOUNT}:{KEY}'.encode()).decode()}"
SECRETS = (KEY, AUTHORIZATION.split()[1], "X-Amz")
RELEASED = datetime(2026, 11, 20, 14, 3, 7, tzinfo=UTC)
QUICK = Bounds(connect_seconds=5, silence_seconds=5, whole_seconds=20, pause_seconds=0.01)


def archive(table=CITY, name="GeoLite2-City_20261120/GeoLite2-City.mmdb"):
    """Give a .tar.gz as MaxMind makes them; the licence is one that does not compress, so that there are pieces."""
    files = {
        "GeoLite2-City_20261120/COPYRIGHT.txt": b"Database and Contents Copyright (c) MaxMind, Inc.",
        "GeoLite2-City_20261120/LICENSE.txt": random.Random(1).randbytes(300_000),  # noqa: S311
        name: table,
    }
    return tar_gz([(tarfile.TarInfo(name), content) for name, content in files.items()])


def tar_gz(members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


class MaxMind:
    """Two servers of the test's own: one that knows accounts and sends elsewhere, one that has the archives."""

    def __init__(self):
        self.archive = archive()
        self.checksum = None  # the right one
        self.published = RELEASED
        self.etag = '"one"'
        self.refuses = None
        self.storage_refuses = None
        self.leads_to = None  # the storage
        self.ranges = True
        self.cut_after = []  # bytes of the next answers with an archive
        self.go_on = asyncio.Event()  # with the archive's second half
        self.go_on.set()
        self.trickles = False
        self.asked = []
        self.served = 0

    async def answer(self, request):
        """Answer as download.maxmind.com."""
        self.asked.append(("maxmind", request.method, request.raw_path, dict(request.headers)))
        if self.refuses:
            return web.Response(status=self.refuses)
        if request.headers.get("Authorization") != AUTHORIZATION:
            return web.Response(status=401)
        if request.match_info["edition"] != "GeoLite2-City":
            return web.Response(status=404)
        sum_or_not = "sum" if request.query["suffix"].endswith(".sha256") else "archive"
        location = f"{self.leads_to or self.storage}/{sum_or_not}?X-Amz-Signature=a%2Fb%3D%3D"
        return web.Response(status=302, headers={"Location": location})

    async def store(self, request):
        """Answer as the storage behind it, which refuses two kinds of credentials at once."""
        self.asked.append(("storage", request.method, request.raw_path, dict(request.headers)))
        if "Authorization" in request.headers or "X-Amz-Signature=a%2Fb%3D%3D" not in request.raw_path:
            return web.Response(status=400)
        if self.storage_refuses:
            return web.Response(status=self.storage_refuses)
        if request.path == "/sum":
            digest = self.checksum or hashlib.sha256(self.archive).hexdigest()
            return web.Response(text=f"{digest}  GeoLite2-City_20261120.tar.gz\n")
        return await self.give(request)

    async def give(self, request):
        headers = {"Last-Modified": format_datetime(self.published, usegmt=True), "ETag": self.etag}
        body, status, start = self.archive, 200, 0
        wanted = request.http_range.start
        if self.ranges and wanted and request.headers.get("If-Range") == self.etag:
            if wanted >= len(body):
                return web.Response(status=416)
            body, status, start = body[wanted:], 206, wanted
            headers["Content-Range"] = f"bytes {start}-{len(self.archive) - 1}/{len(self.archive)}"
        headers["Content-Length"] = str(len(body))
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if self.cut_after:
            body = body[: self.cut_after.pop(0)]
        half = len(body) // 2
        self.served += len(body)
        await response.write(body[:half])
        await self.go_on.wait()
        if self.trickles:
            for byte in body[half:]:
                await response.write(bytes([byte]))
                await asyncio.sleep(0.05)
        await response.write(body[half:])
        if len(body) < len(self.archive) - start:
            request.transport.abort()
        return response

    def methods(self, host="storage"):
        return [(method, path.partition("?")[0]) for to, method, path, _ in self.asked if to == host]


@asynccontextmanager
async def serving(answer, path="/{rest:.*}", context=None):
    """Serve on a port of this machine; gives the address."""
    app = web.Application()
    app.router.add_route("*", path, answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"https://localhost:{port}" if context else f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def running(server):
    async with (
        serving(server.store) as server.storage,
        serving(server.answer, "/geoip/databases/{edition}/download") as server.url,
    ):
        yield server
        server.go_on.set()


@pytest.fixture
async def maxmind():
    async with running(MaxMind()) as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "geo" / "City.mmdb"


@pytest.fixture
def old(path):
    """Put an older table there, as an earlier update did, and give its bytes."""
    path.parent.mkdir()
    path.write_bytes(COUNTRY)
    earlier = (RELEASED - timedelta(days=3)).timestamp()
    os.utime(path, (earlier, earlier))
    return COUNTRY


def source(maxmind, edition="GeoLite2-City", **environ):
    environ = {"MAXMIND_ACCOUNT_ID": ACCOUNT, "MAXMIND_LICENSE_KEY": KEY} | environ
    template = f"{maxmind.url}/geoip/databases/{{edition}}/download?suffix=tar.gz"
    return source_of(read_settings(GeoipSettings, environ), edition, template)


async def fetch(maxmind, path, *, edition="GeoLite2-City", bounds=QUICK, **how):
    return await update(source(maxmind, edition), path, bounds=bounds, **how)


async def refused(maxmind, path, **how):
    """Give the sentence with which an update ends."""
    with pytest.raises(UpdateError) as error:
        await fetch(maxmind, path, **how)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert not any(secret in sentence for secret in SECRETS)
    assert sentence.endswith(".")
    return sentence


def beside(path):
    """Give the names of what an update has left there beside the table and its lock."""
    return sorted(
        entry.name
        for entry in path.parent.iterdir()
        if entry not in (path, path.parent / f".{path.name}.lock")
    )


# A new table.


async def test_the_latest_table_is_put_where_there_was_none(maxmind, path):
    done = await fetch(maxmind, path)
    assert done.replaced
    assert str(done.table) == str(open_database(path)) == f"{path} (GeoLite2-City, built 2026-02-04)"
    assert path.read_bytes() == CITY
    assert open_database(path).place_of("81.2.69.160") == LONDON
    assert beside(path) == []


async def test_the_key_goes_to_maxmind_and_to_no_storage(maxmind, path):
    await fetch(maxmind, path)
    for host, _, address, headers in maxmind.asked:
        assert ("Authorization" in headers) == (host == "maxmind")
        assert KEY not in address
    assert maxmind.methods("storage") == [("HEAD", "/archive"), ("GET", "/sum"), ("GET", "/archive")]


async def test_a_release_that_is_there_is_not_fetched_again(maxmind, path):
    await fetch(maxmind, path)
    maxmind.asked.clear()
    done = await fetch(maxmind, path)
    assert not done.replaced
    assert str(done.table) == f"{path} (GeoLite2-City, built 2026-02-04)"
    assert maxmind.methods() == [("HEAD", "/archive")]


@pytest.mark.parametrize("days", [4, -4])
async def test_another_release_replaces_the_table_even_if_it_is_an_older_one(maxmind, path, days):
    await fetch(maxmind, path)
    maxmind.published = RELEASED + timedelta(days=days)
    maxmind.archive = archive(COUNTRY)
    assert (await fetch(maxmind, path)).replaced
    assert path.read_bytes() == COUNTRY
    assert not (await fetch(maxmind, path)).replaced


async def test_a_table_copied_there_by_hand_is_replaced(maxmind, path):
    path.parent.mkdir()
    path.write_bytes(COUNTRY)
    assert (await fetch(maxmind, path)).replaced
    assert path.read_bytes() == CITY


async def test_a_damaged_table_is_replaced_though_its_release_is_the_latest(maxmind, path):
    path.parent.mkdir()
    path.write_bytes(CITY[:-1000])
    os.utime(path, (RELEASED.timestamp(), RELEASED.timestamp()))
    assert (await fetch(maxmind, path)).replaced
    assert path.read_bytes() == CITY


async def test_force_fetches_the_same_release_again(maxmind, path):
    await fetch(maxmind, path)
    assert (await fetch(maxmind, path, force=True)).replaced


async def test_what_a_symbolic_link_leads_to_is_replaced_and_the_link_stays(maxmind, path, old, tmp_path):
    link = tmp_path / "link.mmdb"
    link.symlink_to(path)
    await fetch(maxmind, link)
    assert link.is_symlink()
    assert path.read_bytes() == CITY


async def test_a_server_that_tells_no_date_is_downloaded_from_each_time(path):
    class Plain(MaxMind):
        async def give(self, request):
            return web.Response(body=self.archive)

    async with running(Plain()) as plain:
        assert (await fetch(plain, path)).replaced
        assert (await fetch(plain, path)).replaced


async def test_progress_is_told_to_the_last_byte(maxmind, path):
    told = []
    await fetch(maxmind, path, on_progress=lambda have, whole: told.append((have, whole)))
    assert len(told) > 2
    assert told[-1] == (len(maxmind.archive), len(maxmind.archive))
    assert told == sorted(told)


# A download that breaks off.


async def test_a_download_that_breaks_off_is_gone_on_with(maxmind, path):
    maxmind.cut_after = [100_000, 50_000]
    assert (await fetch(maxmind, path)).replaced
    assert maxmind.served == len(maxmind.archive)
    assert path.read_bytes() == CITY


async def test_what_had_arrived_when_we_gave_up_serves_the_next_run(maxmind, path, old):
    maxmind.cut_after = [100_000, 50_000, 20_000]
    assert "goes on after the 170000 bytes" in await refused(maxmind, path)
    assert path.read_bytes() == old
    assert [name[-5:] for name in beside(path)] == [".part"]
    assert (await fetch(maxmind, path)).replaced
    assert maxmind.served == len(maxmind.archive)
    assert beside(path) == []


async def test_what_had_arrived_of_another_release_is_thrown_away(maxmind, path):
    maxmind.cut_after = [100_000] * 3
    await refused(maxmind, path)
    (path.parent / ".City.mmdb.keep.part").touch()
    maxmind.archive, maxmind.etag, maxmind.served = archive(COUNTRY), '"two"', 0
    await fetch(maxmind, path)
    assert maxmind.served == len(maxmind.archive)
    assert path.read_bytes() == COUNTRY
    assert beside(path) == [".City.mmdb.keep.part"]


@pytest.mark.parametrize("fault", ["no ranges", "another etag"])
async def test_a_server_that_does_not_go_on_is_downloaded_from_anew(maxmind, path, fault):
    maxmind.cut_after = [100_000] * 3
    await refused(maxmind, path)
    maxmind.served = 0
    maxmind.ranges = fault != "no ranges"
    maxmind.etag = 'W/"weak"' if fault == "another etag" else maxmind.etag
    await fetch(maxmind, path)
    assert maxmind.served == len(maxmind.archive)
    assert path.read_bytes() == CITY


async def test_a_server_that_goes_on_elsewhere_is_downloaded_from_anew(path):
    class Wrong(MaxMind):
        async def give(self, request):
            if request.headers.get("Range"):
                headers = {"Content-Range": f"bytes 0-9/{len(self.archive)}"}
                return web.Response(status=206, body=self.archive[:10], headers=headers)
            return await super().give(request)

    wrong = Wrong()
    wrong.cut_after = [100_000]
    async with running(wrong):
        await fetch(wrong, path)
    assert path.read_bytes() == CITY


@pytest.mark.parametrize("beyond", [0, 10])
async def test_an_archive_that_is_whole_or_too_long_when_we_begin_harms_nothing(maxmind, path, beyond):
    maxmind.cut_after = [100_000] * 3
    await refused(maxmind, path)
    (part,) = path.parent.glob("*.part")
    part.write_bytes(maxmind.archive + bytes(beyond))
    maxmind.served = 0
    await fetch(maxmind, path)
    assert path.read_bytes() == CITY
    assert maxmind.served == (len(maxmind.archive) if beyond else 0)


async def test_a_damaged_beginning_is_thrown_away_and_the_next_run_is_right(maxmind, path):
    maxmind.cut_after = [100_000] * 3
    await refused(maxmind, path)
    (part,) = path.parent.glob("*.part")
    part.write_bytes(bytes(100_000))
    assert "does not have the checksum" in await refused(maxmind, path)
    assert beside(path) == []
    assert (await fetch(maxmind, path)).replaced


# No table, and why.


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "compare MAXMIND_ACCOUNT_ID and MAXMIND_LICENSE_KEY"),
        (403, "take an edition of its subscription"),
        (404, "take --edition GeoLite2-City"),
        (429, "run this again tomorrow"),
        (500, "answered 500: run this again later"),
        (304, "answered 304: run this again later"),
    ],
)
async def test_a_refusal_is_one_sentence_with_the_cure_and_the_old_table_stays(
    maxmind, path, old, status, says
):
    maxmind.refuses = status
    assert says in await refused(maxmind, path)
    assert path.read_bytes() == old
    assert beside(path) == []


async def test_a_wrong_key_is_refused_by_name(maxmind, path):
    other = source(maxmind, MAXMIND_LICENSE_KEY="another")
    with pytest.raises(UpdateError, match="knows no such account and licence key"):
        await update(other, path, bounds=QUICK)


async def test_an_edition_that_is_none_is_said(maxmind, path):
    assert "has no GeoLite3-City (404)" in await refused(maxmind, path, edition="GeoLite3-City")


async def test_what_the_storage_refuses_is_said_of_the_storage(maxmind, path, old):
    maxmind.storage_refuses = 403
    assert "keeps its archives, answered 403" in await refused(maxmind, path)
    assert path.read_bytes() == old


@pytest.mark.parametrize("where", ["maxmind", "storage"])
async def test_a_server_that_is_away_is_said(maxmind, path, old, where):
    async with serving(maxmind.store) as gone:
        pass
    if where == "maxmind":
        maxmind.url = gone
    else:
        maxmind.leads_to = gone
    assert "127.0.0.1 cannot be reached (" in await refused(maxmind, path)
    assert path.read_bytes() == old


async def test_a_name_that_does_not_resolve_is_said(maxmind, path):
    maxmind.leads_to = "http://storage.invalid"
    assert "storage.invalid cannot be reached" in await refused(maxmind, path)


async def test_redirects_in_circles_end(maxmind, path):
    maxmind.leads_to = f"{maxmind.url}/geoip/databases/GeoLite2-City/download?suffix=tar.gz&x="
    assert "broke off (TooManyRedirects)" in await refused(maxmind, path)
    assert len(maxmind.asked) < 10


async def test_a_server_that_falls_silent_is_not_waited_for(maxmind, path, old):
    maxmind.go_on.clear()
    assert "is too slow" in await refused(maxmind, path, bounds=replace(QUICK, silence_seconds=0.2))
    maxmind.go_on.set()
    assert path.read_bytes() == old


async def test_a_server_that_trickles_is_not_waited_for_and_what_has_come_is_kept(maxmind, path, old):
    maxmind.trickles = True
    assert "goes on with what has arrived" in await refused(
        maxmind, path, bounds=replace(QUICK, whole_seconds=1.5)
    )
    assert path.read_bytes() == old
    maxmind.trickles, maxmind.served = False, 0
    await fetch(maxmind, path)
    assert 0 < maxmind.served < len(maxmind.archive)


async def test_a_wrong_checksum_refuses_the_archive(maxmind, path, old):
    maxmind.checksum = "0" * 64
    assert "does not have the checksum" in await refused(maxmind, path)
    assert path.read_bytes() == old
    assert beside(path) == []


@pytest.mark.parametrize("text", ["<html>", "abc", "0" * 65, "x" * 100_000])
async def test_what_is_no_checksum_refuses_the_archive(maxmind, path, old, text):
    maxmind.checksum = text
    assert "has no checksum" in await refused(maxmind, path)
    assert path.read_bytes() == old


async def test_a_checksum_without_end_is_not_read_to_it(path):
    class Endless(MaxMind):
        async def store(self, request):
            if request.path != "/sum":
                return await super().store(request)
            response = web.StreamResponse()
            await response.prepare(request)
            with contextlib.suppress(ConnectionResetError):
                while True:
                    await response.write(b"0" * 1000)
            return response

    async with running(Endless()) as endless:
        assert "has no checksum" in await refused(endless, path)


async def test_a_checksum_may_be_in_capitals(maxmind, path):
    maxmind.checksum = hashlib.sha256(maxmind.archive).hexdigest().upper()
    assert (await fetch(maxmind, path)).replaced


async def test_an_archive_without_end_is_not_downloaded(maxmind, path, old):
    assert "sends more than 200000 bytes" in await refused(
        maxmind, path, bounds=replace(QUICK, archive_bytes=200_000)
    )
    assert path.read_bytes() == old


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (ASN, "take a City or Country edition"),
        (CITY[:-1000], "is damaged"),
        (b"<html>", "is damaged"),
    ],
)
async def test_a_table_that_tells_no_places_is_refused_and_the_old_one_stays(maxmind, path, old, table, says):
    maxmind.archive = archive(table)
    assert says in await refused(maxmind, path)
    assert path.read_bytes() == old
    assert beside(path) == []


# The archive.


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "name", ["../evil.mmdb", "{tmp_path}/evil.mmdb", "geo/../../evil.mmdb", "City.mmdb/x.mmdb"]
)
async def test_the_table_goes_where_we_say_whatever_the_archive_calls_it(maxmind, path, tmp_path, name):
    maxmind.archive = archive(name=name.format(tmp_path=tmp_path))
    await fetch(maxmind, path)
    assert path.read_bytes() == CITY
    assert sorted(file.name for file in tmp_path.rglob("*")) == [".City.mmdb.lock", "City.mmdb", "geo"]


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (b"", "it is no whole .tar.gz"),
        (b"no gzip", "it is no whole .tar.gz"),
        (gzip.compress(b"no tar"), "it is no whole .tar.gz"),
        (archive()[:-20_000], "it is no whole .tar.gz"),
        (tar_gz([]), "there is no .mmdb"),
        (tar_gz([(member("City.csv"), CITY)]), "there is no .mmdb"),
        (tar_gz([(member("x.mmdb", tarfile.SYMTYPE, "/etc/passwd"), b"")]), "there is no .mmdb"),
        (tar_gz([(member("x.mmdb", tarfile.LNKTYPE, "/etc/passwd"), b"")]), "there is no .mmdb"),
        (tar_gz([(member("x.mmdb", tarfile.FIFOTYPE), b"")]), "there is no .mmdb"),
        (tar_gz([(member("x.mmdb/", tarfile.DIRTYPE), b"")]), "there is no .mmdb"),
        (
            tar_gz([(member(f"{n}"), b"") for n in range(100)] + [(member("x.mmdb"), CITY)]),
            "there is no .mmdb",
        ),
        (tar_gz([(member("x" * 2_000_000), b"")]), "it is no whole .tar.gz"),
        (
            tar_gz([(member("x"), bytes(OTHERS_BYTES + 60_000)), (member("x.mmdb"), CITY)]),
            "it is no whole .tar.gz",
        ),
        (tar_gz([(member("x.mmdb"), bytes(60_000))]), "its table has 60000 bytes"),
    ],
    ids=range(14),
)
async def test_an_archive_without_a_table_within_the_bounds_is_refused(maxmind, path, old, packed, says):
    maxmind.archive = packed
    assert says in await refused(maxmind, path, bounds=replace(QUICK, table_bytes=50_000))
    assert path.read_bytes() == old
    assert beside(path) == []


SMALL = gzip.decompress(
    tar_gz([(member("LICENSE.txt"), b"text"), (member("x" * 150 + ".mmdb"), CITY[:2000])])
)


@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=60),
    st.integers(0, len(SMALL)),
)
def test_any_bytes_in_a_tar_are_a_file_or_refused(tmp_path_factory, damage, length):
    content = bytearray(SMALL)
    for position, byte in damage:
        content[position] = byte
    packed = tmp_path_factory.getbasetemp() / "damaged.tar.gz"
    packed.write_bytes(gzip.compress(content[:length], 1))
    table = packed.with_suffix(".mmdb")
    with contextlib.suppress(ArchiveError):
        unpack(packed, table, 5000)
        assert table.stat().st_size <= 5000


@given(st.binary(max_size=2000))
def test_any_bytes_as_a_header_are_a_file_or_refused(tmp_path_factory, header):
    packed = tmp_path_factory.getbasetemp() / "any.tar.gz"
    packed.write_bytes(gzip.compress(header + SMALL, 1))
    with contextlib.suppress(ArchiveError):
        unpack(packed, packed.with_suffix(".mmdb"), 5000)


# The disk, and who else is at it.


async def test_a_full_disk_is_said_and_left_as_it_was(maxmind, path, old):
    digest = hashlib.sha256(maxmind.archive).hexdigest()
    path.with_name(f".City.mmdb.{digest[:16]}.part").symlink_to("/dev/full")
    assert f"There is no room for {path}" in await refused(maxmind, path)
    assert path.read_bytes() == old
    assert beside(path) == []


@pytest.mark.parametrize("place", ["/dev/null/City.mmdb", "/proc/City.mmdb"])
async def test_a_place_that_cannot_be_written_is_said(maxmind, place):
    assert f"{place} cannot be written" in await refused(maxmind, Path(place))
    assert maxmind.asked == []


async def test_a_folder_in_the_tables_place_is_said(maxmind, path):
    path.mkdir(parents=True)
    assert f"{path} cannot be written (Is a directory)" in await refused(maxmind, path)
    assert beside(path) == []


async def test_two_updates_at_once_do_not_disturb_each_other(maxmind, path):
    maxmind.go_on.clear()
    first = asyncio.create_task(fetch(maxmind, path))
    await until(lambda: ("GET", "/archive") in maxmind.methods())
    try:
        assert f"Another update of {path} is under way" in await refused(maxmind, path)
    finally:
        maxmind.go_on.set()
        done = await first
    assert done.replaced
    assert path.read_bytes() == CITY


async def until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


# Where it is fetched from.


@pytest.mark.parametrize(
    ("environ", "edition", "url", "says"),
    [
        ({}, "GeoLite2-City", None, "are not set: sign up for GeoLite"),
        ({"MAXMIND_ACCOUNT_ID": "1"}, "GeoLite2-City", None, "belong together"),
        ({"MAXMIND_LICENSE_KEY": KEY}, "GeoLite2-City", None, "belong together"),
        (
            {"MAXMIND_ACCOUNT_ID": "1:2", "MAXMIND_LICENSE_KEY": KEY},
            "GeoLite2-City",
            None,
            "wanted: the number",
        ),
        ({}, "../City", "https://mirror.example/{edition}", "'../City' is no edition"),
        ({}, "City", "ftp://mirror.example/{edition}", "does not parse"),
        ({}, "City", "https:///{edition}", "does not parse"),
        ({}, "City", "https://[/", "does not parse"),
        ({}, "City", "https://user:pa55@mirror.example/{edition}", "without a user"),
        ({"MAXMIND_URL": "mirror.example"}, "City", None, "does not parse"),
        (
            {"MAXMIND_ACCOUNT_ID": "1", "MAXMIND_LICENSE_KEY": KEY},
            "City",
            "http://mirror.example/{edition}",
            "does not go to mirror.example without TLS",
        ),
    ],
)
def test_a_source_that_is_none_is_wrong_use_and_said_without_its_secrets(environ, edition, url, says):
    with pytest.raises(SettingsError) as error:
        source_of(read_settings(GeoipSettings, environ), edition, url)
    assert says in str(error.value)
    assert KEY not in str(error.value)
    assert "pa55" not in str(error.value)


def test_maxminds_addresses_are_those_it_documents():
    settings = {"MAXMIND_ACCOUNT_ID": ACCOUNT, "MAXMIND_LICENSE_KEY": KEY}
    found = source_of(read_settings(GeoipSettings, settings), "GeoIP2-City")
    permalink = "https://download.maxmind.com/geoip/databases/GeoIP2-City/download?suffix=tar.gz"
    assert str(found.archive) == permalink
    assert str(found.checksum) == f"{permalink}.sha256"
    assert not any(secret in repr(found) for secret in SECRETS)


async def test_a_mirror_needs_no_key_and_gets_none(path):
    asked = []
    packed = archive()

    async def answer(request):
        asked.append(request)
        if request.path.endswith(".sha256"):
            return web.Response(text=hashlib.sha256(packed).hexdigest())
        return web.Response(body=packed)

    async with serving(answer) as mirror:
        settings = read_settings(GeoipSettings, {"MAXMIND_URL": f"{mirror}/{{edition}}.tar.gz"})
        await update(source_of(settings, "GeoLite2-City"), path, bounds=QUICK)
    paths = ["/GeoLite2-City.tar.gz", "/GeoLite2-City.tar.gz.sha256", "/GeoLite2-City.tar.gz"]
    assert [request.path for request in asked] == paths
    assert not any("Authorization" in request.headers for request in asked)
    assert path.read_bytes() == CITY


async def test_the_environments_proxy_is_used(path, monkeypatch):
    packed = archive()

    async def proxy(request):
        assert str(request.url).startswith("http://mirror.example/")
        if request.path.endswith(".sha256"):
            return web.Response(text=hashlib.sha256(packed).hexdigest())
        return web.Response(body=packed)

    async with serving(proxy) as address:
        monkeypatch.setenv("http_proxy", address)
        settings = read_settings(GeoipSettings, {"MAXMIND_URL": "http://mirror.example/{edition}.tar.gz"})
        await update(source_of(settings, "GeoLite2-City"), path, bounds=QUICK)
    assert path.read_bytes() == CITY


# As a command.


async def geoip(*arguments, stderr=asyncio.subprocess.PIPE, **environ):
    """Run `geoip update` as cron does; never says the key."""
    process = await start(*arguments, stderr=stderr, **environ)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    said = SimpleNamespace(code=process.returncode, out=out.decode(), err=(err or b"").decode())
    assert not any(secret in said.out + said.err for secret in SECRETS)
    assert "Traceback" not in said.err
    return said


async def start(*arguments, stderr=asyncio.subprocess.PIPE, **environ):
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return await asyncio.create_subprocess_exec(
        *(SCRIPTS / "geoip", "update", *arguments),
        env=kept | {name: str(value) for name, value in environ.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )


@pytest.fixture
def environ(maxmind, path):
    template = f"{maxmind.url}/geoip/databases/{{edition}}/download?suffix=tar.gz"
    return {
        "GEOIP_DB": path,
        "MAXMIND_ACCOUNT_ID": ACCOUNT,
        "MAXMIND_LICENSE_KEY": KEY,
        "MAXMIND_URL": template,
    }


async def test_the_command_says_what_is_in_place_and_then_that_nothing_is_newer(maxmind, environ, path):
    said = await geoip(**environ)
    assert (said.code, said.out) == (0, f"{path} (GeoLite2-City, built 2026-02-04) is in place.\n")
    assert said.err.splitlines() == [f"GeoLite2-City: {n} % of 0.3 MB" for n in (25, 50, 75, 100)]
    said = await geoip(**environ)
    assert said.out == f"{path} (GeoLite2-City, built 2026-02-04) is the latest release already.\n"
    assert (said.code, said.err) == (0, "")
    assert (await geoip("--force", **environ)).out.endswith("is in place.\n")


async def test_the_key_may_be_in_a_file_and_options_win_over_variables(maxmind, environ, path, tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    del environ["MAXMIND_LICENSE_KEY"]
    url = environ.pop("MAXMIND_URL")
    other = tmp_path / "Other.mmdb"
    options = ("--url", url, "--db", other, "--edition", "GeoLite2-City")
    said = await geoip(*options, MAXMIND_LICENSE_KEY_FILE=tmp_path / "key", **environ)
    assert (said.code, other.read_bytes()) == (0, CITY)
    assert not path.exists()


async def test_what_is_missing_is_wrong_use(maxmind, environ):
    for without, says in {
        "GEOIP_DB": "GEOIP_DB is not set",
        "MAXMIND_LICENSE_KEY": "belong together",
    }.items():
        said = await geoip(**{name: value for name, value in environ.items() if name != without})
        assert (said.code, said.out) == (2, "")
        assert says in said.err
        assert said.err.count("\n") == 1
    assert (await geoip("--edition", "../City", **environ)).code == 2
    assert maxmind.asked == []


async def test_what_fails_fails_in_one_sentence(maxmind, environ, path, old):
    maxmind.refuses = 429
    said = await geoip(**environ)
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert "429" in said.err
    assert path.read_bytes() == old


async def test_a_kill_in_the_middle_keeps_the_old_table_and_the_next_run_goes_on(maxmind, environ, path, old):
    maxmind.go_on.clear()
    process = await start(**environ)
    await until(lambda: any(part.stat().st_size for part in path.parent.glob("*.part")))
    process.kill()
    await process.communicate()
    maxmind.go_on.set()
    assert path.read_bytes() == old
    maxmind.served = 0
    assert (await geoip(**environ)).code == 0
    assert 0 < maxmind.served < len(maxmind.archive)
    assert path.read_bytes() == CITY


async def test_a_terminal_shows_a_bar(maxmind, environ):
    here, there = pty.openpty()
    maxmind.go_on.clear()
    process = await start(stderr=there, TERM="xterm", COLUMNS="120", **environ)
    os.close(there)
    seen = b""
    while "━".encode() not in seen:
        seen += await asyncio.wait_for(asyncio.to_thread(os.read, here, 65536), 20)
    maxmind.go_on.set()
    drained = asyncio.create_task(asyncio.to_thread(_drain, here))
    await process.communicate()
    await drained
    os.close(here)
    assert process.returncode == 0
    assert b"GeoLite2-City" in seen


def _drain(terminal):
    with contextlib.suppress(OSError):  # Linux's way of saying that the other side is gone
        while os.read(terminal, 65536):
            pass


async def test_a_certificate_nobody_signed_is_said_and_the_key_not_sent(environ, tmp_path):
    asked = []

    async def answer(request):
        asked.append(request)
        return web.Response(status=404)

    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with serving(answer, context=context) as address:
        said = await geoip(**environ | {"MAXMIND_URL": f"{address}/{{edition}}.tar.gz"})
        assert (said.code, asked) == (1, [])
        assert "localhost cannot be reached" in said.err
        assert "certificate" in said.err.lower()


async def test_a_redirect_away_from_tls_is_refused(maxmind, environ, path, tmp_path):
    async def answer(request):
        return web.Response(
            status=302, headers={"Location": f"{maxmind.storage}/archive?X-Amz-Signature=a%2Fb%3D%3D"}
        )

    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with serving(answer, context=context) as address:
        said = await geoip(
            **environ | {"MAXMIND_URL": f"{address}/{{edition}}", "SSL_CERT_FILE": tmp_path / "ca.pem"}
        )
    assert said.code == 1
    assert "leads to a place without TLS" in said.err
    assert not path.exists()
