"""A click goes all the way: the Procfile's processes, real Redis, real Kafka, and three events read back.

Imports nothing of ours: whatever is known here, a stranger can know.
"""

import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from kafka_reader import read_committed

from embedded.ports import free_port

ROOT = Path(__file__).parent.parent
SECONDS = 60

LINK = {
    "id": 46,
    "slug": "winter",
    "campaign": "Winter Sale",
    "network": "7games",
    "user_id": 9,
    "attribution_window_idfa": 70,
    "attribution_window_fingerprint": 60,
    "utm_source": "newsletter",
    "target_url": {
        "ios": "https://apps.apple.com/app/id1",
        "android": "market://details?id=a.b&referrer=utm_source%3Dgoogle",
        "default": "https://shop.example/",
    },
}
VISITORS = {
    "ios": (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/18.1 Mobile/15E148 Safari/604.1"
    ),
    "android": (
        "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/130.0.0.0 Mobile Safari/537.36"
    ),
    "gnu/linux": "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
}


@pytest.fixture
def environ(tmp_path, redis_server, apache_kafka, topic_prefix):
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PORT": str(free_port()),
        "REDIS_URL": redis_server.url,
        "KAFKA_URL": apache_kafka.url,
        "KAFKA_PREFIX": topic_prefix,
        "DATABASE_URL": f"sqlite:///{tmp_path}/onward.db",
        "JOURNAL_DIR": str(tmp_path / "journal"),
        "CLICKHOUSE_URL": f"http://127.0.0.1:{free_port()}",  # away: that consumer waits
        "ARCHIVE_URL": str(tmp_path / "archive"),
        "ARCHIVE_SECONDS": "1",
        "TRUSTED_PROXIES": "1",
        "TZ": "Europe/Berlin",
    }


@contextlib.contextmanager
def procfile(environ, directory):
    """Run every line of the Procfile as a platform does, by a shell; afterwards SIGTERM must end each with 0."""
    lines = (ROOT / "Procfile").read_text("utf-8").splitlines()
    commands = dict(re.match(r"(\w+): (.+)", line).groups() for line in lines)
    processes = {}
    for name, command in commands.items():
        with (directory / f"{name}.log").open("wb") as log:
            processes[name] = subprocess.Popen(["sh", "-c", command], env=environ, cwd=ROOT, stderr=log)
    try:
        yield processes
        # A process that is still importing would be ended by the signal itself.
        until(lambda: all('_started"' in (directory / f"{name}.log").read_text("utf-8") for name in commands))
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        codes = {name: process.wait(10) for name, process in processes.items()}
    assert set(codes.values()) == {0}, codes


class StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def get(url, **headers):
    """Give status, headers and body."""
    try:
        answer = urllib.request.build_opener(StayHere).open(
            urllib.request.Request(url, headers=headers), timeout=5
        )
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers, answer.read()


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "that took too long"
        time.sleep(0.05)
    return found


def is_up(base):
    try:
        return get(f"{base}/healthz")[0] == 200
    except OSError:
        return False


@pytest.mark.usefixtures("redis")
def test_three_clicks_are_redirected_and_read_back_from_kafka_whole(
    environ, tmp_path, apache_kafka, topic_prefix
):
    base = f"http://127.0.0.1:{environ['PORT']}"
    (tmp_path / "links.jsonl").write_text(json.dumps(LINK))
    subprocess.run(
        ["collector", "links", "import", tmp_path / "links.jsonl"],
        env=environ,
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    with procfile(environ, tmp_path):
        until(lambda: is_up(base))
        assert get(f"{base}/check")[2] == b"OK"
        for platform, user_agent in VISITORS.items():
            status, sent, _ = get(
                f"{base}/click/46/go?adid=ecc27e5716052714cafe13dc6dfb742f&click={platform}&x=%C3%BC&y",
                **{
                    "User-Agent": user_agent,
                    "X-Forwarded-For": "130.149.7.201",
                    "Referer": "https://news.example/a?b",
                },
            )
            assert status == 307
            assert sent["Location"] == LINK["target_url"].get(platform, LINK["target_url"]["default"])
        records = until(lambda: three_clicks(apache_kafka.bootstrap, topic_prefix))
        archived = until(lambda: list((tmp_path / "archive" / f"{topic_prefix}clicks").glob("*/*/*.gz")))
    assert sum(len(gzip.decompress(file.read_bytes()).splitlines()) for file in archived) == 3
    expected_keys = list(
        json.loads((ROOT / "tests/data/events.jsonl").read_text("utf-8").splitlines()[0])["value"]
    )
    assert {json.loads(record.value())["platform"] for record in records} == set(VISITORS)
    for record in records:
        click = json.loads(record.value())
        assert list(click) == expected_keys
        assert (click["link_id"], click["slug"], click["campaign"]) == (46, "winter", "Winter Sale")
        assert click["user_agent"] == VISITORS[click["platform"]]
        assert click["click"] == click["platform"]
        assert (click["ip"], click["country"]) == ("130.149.7.0", "DE")
        assert (click["referer"], click["trigger"], click["utm_source"]) == (
            "news.example",
            "link",
            "newsletter",
        )
        assert click["device"] == ("desktop" if click["platform"] == "gnu/linux" else "smartphone")
        assert click["bot_class"] is None
        assert click["lookup_key"] == "bb0ca0283abd536a7ae2941c6cde29dd"
        assert click["params"] == {"x": "ü", "y": None}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+]0[12]:00", click["attr_window_till"])
        assert re.fullmatch(
            r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", click["event_id"]
        )
        assert 0 <= click["klag_ms"] < SECONDS * 1000
        assert record.key() == b"bb0ca0283abd536a7ae2941c6cde29dd"
        assert dict(record.headers())["ce_id"].decode() == click["event_id"]
    assert len({record.partition() for record in records}) == 1, "one person, one partition"


def three_clicks(bootstrap, topic_prefix):
    with contextlib.suppress(KeyError):  # the kafkastore creates the topics when it first runs
        records = read_committed(bootstrap, f"{topic_prefix}clicks")
        assert len(records) <= 3
        return records if len(records) == 3 else None
