"""Members of one archive that fail, die, stand still and overlap at every step: no record twice, none lost."""

import asyncio
import os
import signal
import sys
import time
import urllib.request
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from archive_world import in_archive
from pydantic import SecretStr

from consumers.archive import Archive
from consumers.sink import Batch, MovedError, SinkAwayError, Span
from embedded.ports import free_port
from embedded.server import Child, Program

CLICKS = TopicPartition("clicks", 0)
CLUSTER = "cluster"
DAY_MS = 86_400_000
RECORDS = 300


class Killed(Exception):  # noqa: N818
    """What ends a member at once."""


class UnreliableStore:
    """A store that is slow, fails before or after it did what it was asked for, or never comes back."""

    def __init__(self, store, rng, *, faults):
        self._store, self._rng, self._faults = store, rng, faults

    def __getattr__(self, name):
        async def unreliable(*arguments):
            await self._fault()
            answer = await getattr(self._store, name)(*arguments)
            await self._fault()
            return answer

        return unreliable

    async def _fault(self):
        for _ in range(self._rng.choice((0, 0, 1, 30))):
            await asyncio.sleep(0)
        if self._rng.random() < self._faults:
            raise self._rng.choice((SinkAwayError("away"), Killed()))


def log(rng):
    """Give a partition's records, with gaps where transactions end."""
    offsets = sorted(rng.sample(range(RECORDS * 2), RECORDS))
    return [
        SimpleNamespace(
            topic="clicks",
            partition=0,
            offset=offset,
            timestamp=rng.choice((0, 1, 2)) * DAY_MS + offset,
            key=b"k",
            value=b'{"n":%d}' % offset,
            headers=(("ce_id", b"%d" % offset),),
        )
        for offset in offsets
    ]


def archive(root, **settings):
    return Archive(SecretStr(str(root)), ["clicks"], **{"seconds": 3600, "file_bytes": 64 * 1024} | settings)


def span_of(records, begin, end):
    return Batch(CLUSTER, [Span(CLICKS, begin, end, [r for r in records if begin <= r.offset < end])])


async def member(root, records, rng, faults):
    """Live and die, again and again, until everything is read and written."""
    end = RECORDS * 2
    while True:
        sink = archive(root)
        sink._store = UnreliableStore(sink._store, rng, faults=faults)
        try:
            while True:
                try:
                    begin = (await sink.positions(CLUSTER, {CLICKS: 0}))[CLICKS]
                    while begin < end:
                        upto = min(end, begin + rng.choice((1, 7, 40)))
                        await sink.write(span_of(records, begin, upto))
                        begin = upto
                        await sink.settle(everything=rng.random() < 0.3)
                    await sink.settle(everything=True)
                except (SinkAwayError, MovedError):
                    continue
                else:
                    return
        except Killed:
            continue


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """Yield a server that speaks S3 and can be stopped and started, and the URL of a bucket there."""
    port = free_port()

    def answers():
        try:
            bucket = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
            urllib.request.urlopen(bucket, timeout=5).close()
        except OSError:
            return False
        return True

    argv = (sys.executable, "-m", "moto.server", "-p", str(port))
    directory = tmp_path_factory.mktemp("s3")
    child = Child(Program(name="s3", directory=directory, argv=argv, ports=(port,), answers=answers))
    child.start()
    options = f"endpoint=http://127.0.0.1:{port}&access_key_id=a&secret_access_key=b&region=us-east-1"
    yield child, f"s3://bucket/NAME?{options}"
    child.kill()


@pytest.fixture(params=["folder"] * 20 + ["s3"] * 3)
def root(request, tmp_path):
    """Give the URL of an archive."""
    if request.param == "folder":
        return str(tmp_path)
    return request.getfixturevalue("s3")[1].replace("NAME", f"archive-{time.time_ns()}")


async def copied(root, directory):
    """Give a folder with the files of an archive."""
    store = archive(root)._store
    for path, _ in await store.files(""):
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(await store.read(path))
    return directory


async def test_members_that_overlap_fail_and_die_write_each_record_once(root, tmp_path, rng):
    records = log(rng)
    await asyncio.gather(*(member(root, records, rng, faults=0.02) for _ in range(3)))
    found = in_archive(await copied(root, tmp_path / "copy"))
    assert set(found.values()) == {1}
    assert sorted(record[2] for record in found) == [record.offset for record in records]


async def test_a_store_that_does_not_answer_is_away_and_nothing_gathered_is_lost(s3, tmp_path, rng):
    child, url = s3
    records = log(rng)
    sink = archive(url.replace("NAME", "away"))
    await sink.positions(CLUSTER, {CLICKS: 0})
    await sink.write(span_of(records, 0, 100))
    os.kill(child.pid, signal.SIGKILL)
    for asked in (sink.settle(everything=True), sink.positions(CLUSTER, {CLICKS: 0})):
        with pytest.raises(SinkAwayError):
            await asked
    child.start()
    assert await sink.positions(CLUSTER, {CLICKS: 100}) == {CLICKS: 100}


async def test_a_bucket_that_is_not_there_is_said(s3):
    nowhere = archive(s3[1].replace("bucket", "nobucket"))
    with pytest.raises(SinkAwayError, match="404 Not Found"):
        await nowhere.positions(CLUSTER, {CLICKS: 0})


async def test_a_claim_that_nobody_finished_is_finished_where_it_ends(tmp_path, rng):
    records = log(rng)
    dead, heir = archive(tmp_path), archive(tmp_path)
    await dead.positions(CLUSTER, {CLICKS: 0})
    await dead.write(span_of(records, 0, 100))
    dead._store = UnreliableStore(dead._store, rng, faults=0)
    dead._store.create = failing(dead._store.create, at="clicks/")
    with pytest.raises(Killed):
        await dead.settle(everything=True)
    assert not in_archive(tmp_path)
    assert await heir.positions(CLUSTER, {CLICKS: 0}) == {CLICKS: 0}
    await heir.write(span_of(records, 0, 150))
    assert max(record[2] for record in in_archive(tmp_path)) < 100
    await heir.settle(everything=True)
    assert in_archive(tmp_path).total() == sum(record.offset < 150 for record in records)


def failing(create, at):
    async def fail(path, content):
        if path.startswith(at):
            raise Killed
        return await create(path, content)

    return fail


async def test_a_member_that_was_overtaken_writes_nothing_and_says_so(tmp_path, rng):
    records = log(rng)
    slow, quick = archive(tmp_path), archive(tmp_path)
    for sink in (slow, quick):
        await sink.positions(CLUSTER, {CLICKS: 0})
        await sink.write(span_of(records, 0, 50))
    for begin in range(0, 50 * 20, 50):  # so far that its number is free again
        await quick.settle(everything=True)
        records.append(SimpleNamespace(**vars(records[0]) | {"offset": 10_000 + begin}))
        await quick.write(Batch(CLUSTER, [Span(CLICKS, 50 + begin, 100 + begin, records[-1:])]))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MovedError):
        await slow.settle(everything=True)
    assert sorted(tmp_path.rglob("*")) == before


async def test_another_cluster_begins_at_its_own_position(tmp_path, rng):
    records = log(rng)
    sink = archive(tmp_path)
    await sink.positions(CLUSTER, {CLICKS: 0})
    await sink.write(span_of(records, 0, 50))
    await sink.settle(everything=True)
    assert await sink.positions(CLUSTER, {CLICKS: 0}) == {CLICKS: 50}
    assert await sink.positions("another", {CLICKS: 7}) == {CLICKS: 7}


async def test_all_partitions_together_hold_no_more_than_four_files(tmp_path, rng):
    sink = archive(tmp_path)
    partitions = [TopicPartition("clicks", number) for number in range(8)]
    await sink.positions(CLUSTER, dict.fromkeys(partitions, 0))
    noise = [rng.randbytes(1000) for _ in range(40)]
    for offset, value in enumerate(noise):
        spans = [
            Span(
                partition,
                offset,
                offset + 1,
                [
                    SimpleNamespace(
                        topic="clicks",
                        partition=partition.partition,
                        offset=offset,
                        timestamp=0,
                        key=None,
                        value=value,
                        headers=(),
                    )
                ],
            )
            for partition in partitions
        ]
        await sink.write(Batch(CLUSTER, spans))
        assert sum(gathered.size for gathered in sink._gathered.values()) <= 4 * 64 * 1024
    assert in_archive(tmp_path)
    await sink.settle(everything=True)
    assert in_archive(tmp_path).total() == 8 * 40
