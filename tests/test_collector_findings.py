"""`collector check`: what a Redis and a disk could cost, said before they do."""

from pathlib import Path

import pytest

from collector import findings
from collector.findings import file_system
from collector.settings import CollectorSettings
from embedded.redis import running_redis

MOUNTS = r"""overlay / overlay rw,relatime 0 0
server:/export /mnt nfs4 rw,vers=4.2 0 0
/dev/sda1 /mnt/disk ext4 rw 0 0
s3 /mnt/my\040bucket fuse.s3fs rw 0 0
tmpfs /data tmpfs rw 0 0
/dev/sdb1 /data ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/journal", "overlay"),
        ("/mnt/journal", "nfs4"),
        ("/mnt/disk", "ext4"),
        ("/mnt/disks", "nfs4"),
        ("/mnt/my bucket/journal", "fuse.s3fs"),
        ("/data/journal", "ext4"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path, kind):
    assert file_system(Path(path), MOUNTS) == kind


def test_a_system_without_mounts_says_nothing():
    assert file_system(Path("/var"), "") == ""


async def found(tmp_path, url, **more):
    settings = CollectorSettings(
        redis_url=url,
        journal_dir=tmp_path / "journal",
        database_url=f"sqlite:///{tmp_path}/onward.db",
        **more,
    )
    return [(finding.fatal, finding.text) async for finding in findings.findings(settings)]


async def test_a_journal_on_a_network_is_refused_and_one_in_memory_told(tmp_path, redis_server, monkeypatch):
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(findings, "_MOUNTS", mounts)
    mounts.write_text(f"server:/export {tmp_path} nfs4 rw 0 0\n")
    ((fatal, text),) = await found(tmp_path, redis_server.url)
    assert fatal
    assert "(nfs4)" in text
    mounts.write_text(f"tmpfs {tmp_path} tmpfs rw 0 0\n")
    ((fatal, text),) = await found(tmp_path, redis_server.url)
    assert not fatal
    assert "goes with the machine" in text
    mounts.unlink()
    assert await found(tmp_path, redis_server.url) == []


@pytest.mark.parametrize(
    ("durability", "extra", "expected"),
    [
        ("journal", (), [(False, "appendonly no")]),
        ("redis", (), [(True, "or not DURABILITY=redis")]),
        ("redis", ("--appendonly", "yes"), []),
        ("journal", ("--appendonly", "yes", "--appendfsync", "no"), [(False, "appendfsync no")]),
        (
            "journal",
            ("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"),
            [(True, "maxmemory-policy allkeys-lru")],
        ),
    ],
)
async def test_a_redis_below_the_durability_asked_for_is_found(
    tmp_path, monkeypatch, durability, extra, expected
):
    monkeypatch.setattr(findings, "_MOUNTS", tmp_path / "none")
    with running_redis(tmp_path / "redis", extra=["--appendonly", "no", *extra]) as server:
        said = await found(tmp_path, server.url, durability=durability)
    assert [fatal for fatal, _ in said] == [fatal for fatal, _ in expected]
    for (_, text), (_, part) in zip(said, expected, strict=True):
        assert part in text
