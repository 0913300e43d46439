"""Dead letters and the way back: by the commands an operator types, on real servers, ended at every step."""

import asyncio
import base64
import itertools
import json
import os
import pty
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from cutting_proxy import CuttingProxy, cutting
from hypothesis import given
from hypothesis import strategies as st
from kafka_reader import values
from processes import SCRIPTS
from redis.exceptions import ResponseError

from collector.queue import CLICK_QUEUE, QueueKeys
from kafkastore import dead_piles, redrive
from kafkastore.dead_letter import dead_letter
from kafkastore.dead_letters import Letter, Mark
from kafkastore.dead_piles import MarkMovedError, open_piles
from kafkastore.dead_view import readable
from kafkastore.redrive import QueueFullError, move
from kafkastore.settings import KafkastoreSettings
from process.settings import read_settings

PARTITIONS = 3
LATE_SECONDS = 0.5  # when the mark has long been asked for
CLICK_INVALID = QueueKeys(CLICK_QUEUE).key("click_invalid")
NOW = int(time.time())  # what died long ago may be gone with Kafka's retention while a test looks
GOOD = b"203.0.113.42 %d clicks /t/click campaign_link_id=1 iPhone" % NOW
PAYMENT = b"203.0.113.42 %d payments /t/paid amount=%%d iPhone" % NOW
TOO_LARGE = b"203.0.113.42 %d inapp /t/x a=" % NOW + b"x" * 2_000_000


@pytest.fixture
def environ(redis, redis_server, apache_kafka, topic_prefix):
    return {
        "REDIS_URL": redis_server.url,
        "KAFKA_URL": apache_kafka.url,
        "KAFKA_PREFIX": topic_prefix,
        "KAFKA_PARTITIONS": str(PARTITIONS),
    }


@pytest.fixture
def command(environ):
    """Give a function that runs `kafkastore` to its end."""

    def run(*arguments, **more):
        return subprocess.run(
            [SCRIPTS / "kafkastore", *arguments],
            env=os.environ | environ | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def settings(environ):
    return read_settings(KafkastoreSettings, environ)


@pytest.fixture
async def cemetery(settings):
    """Give functions that make `clicks.dead`, put letters into it, and take it away again."""
    topic = f"{settings.kafka_prefix}clicks.dead"
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_url)
    await admin.start()
    numbers = iter(range(1_000_000))

    async def create():
        answer = await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
        assert [code for _, code, _ in answer.topic_errors] == [0]

    async def bury(count, reason="unknown topic", partition=None, line=b"line %d"):
        lines = [line.replace(b"%d", b"%d" % next(numbers)) for _ in range(count)]
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka_url) as producer:
            for number, one in enumerate(lines):
                letter = dead_letter(one, reason=reason, step="decode", topic=None, at_ms=NOW * 1000)
                where = number % PARTITIONS if partition is None else partition
                await producer.send(
                    topic, one, partition=where, timestamp_ms=letter.timestamp_ms, headers=letter.headers
                )
        return lines

    async def delete():
        await admin.delete_topics([topic])
        async with asyncio.timeout(30):
            while topic in await admin.list_topics():
                await asyncio.sleep(0.05)

    async def expire(offset, partition=0):
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)})

    await create()
    yield SimpleNamespace(topic=topic, create=create, bury=bury, delete=delete, expire=expire)
    await admin.close()


def rows(done):
    """Give a listing's rows without the titles."""
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()[1:]]


async def queued(redis):
    return await redis.lrange(CLICK_QUEUE, 0, -1)


async def test_lines_come_back_once_what_they_lacked_is_there(command, redis, apache_kafka, topic_prefix):
    payments = [PAYMENT % number for number in range(20)]
    hopeless = [b"\x1b[2J\x07 three fields", b"\xff\0\r\n\xc2\x9b31m", b""]
    await redis.rpush(CLICK_QUEUE, GOOD, *payments, *hopeless)
    assert command("run", "--until-empty").returncode == 0

    found = {(topic, reason): int(letters) for topic, reason, letters, *_ in rows(command("dead", "list"))}
    assert found == {("clicks.dead", "unknown topic"): 20, ("clicks.dead", "fewer than five fields"): 3}
    (listed,) = map(json.loads, command("dead", "list", "--json").stdout.splitlines())
    assert (listed["topic"], listed["letters"]) == ("clicks.dead", 23)
    assert listed["oldest"] <= listed["newest"]
    shown = command("dead", "show", "clicks", "--json", "--limit", "1000").stdout.splitlines()
    assert sorted(base64.b64decode(json.loads(letter)["line_base64"]) for letter in shown) == sorted(
        payments + hopeless
    )

    environ = {"INAPP_TOPICS": "payments"}
    assert "23 letters would be" in command("dead", "redrive", "--dry-run", **environ).stdout
    assert await queued(redis) == []
    assert "23 letters are back" in command("dead", "redrive", **environ).stdout
    assert sorted(await queued(redis)) == sorted(payments + hopeless)

    assert command("run", "--until-empty", **environ).returncode == 0
    events = [json.loads(value) for value in values(apache_kafka.bootstrap, f"{topic_prefix}payments")]
    assert sorted(int(event["params"]["amount"]) for event in events) == list(range(20))
    again = [(reason, letters) for _, reason, letters, *_ in rows(command("dead", "list", **environ))]
    assert again == [("fewer than five fields", "3")], "what is still no event is dead again"

    assert "3 letters dropped" in command("dead", "drop", "--yes", **environ).stdout
    assert "no dead letters" in command("dead", "list", **environ).stderr
    assert len(values(apache_kafka.bootstrap, f"{topic_prefix}clicks.dead")) == 26, "Kafka keeps its letters"


FAULTS = {
    "the script is lost": lambda proxy, script, _kill: proxy.instead_of(script, lambda: None),
    "its reply is lost": lambda proxy, script, _kill: proxy.lose_reply_to(script),
    "it arrives late": lambda proxy, script, _kill: proxy.deliver_late(script, LATE_SECONDS),
    "killed before": lambda proxy, script, kill: proxy.instead_of(script, kill),
    "killed after": lambda proxy, script, kill: proxy.at(script, kill),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("topic", ["clicks", "click_invalid"])
async def test_a_redrive_ended_at_any_step_loses_and_doubles_nothing(
    environ, settings, cemetery, redis, redis_server, topic, fault
):
    """It happens to the second script, of three (a partition each) or of twelve (a line each)."""
    lines = await cemetery.bury(12) if topic == "clicks" else [b"line %d" % number for number in range(12)]
    if topic == "click_invalid":
        await redis.rpush(CLICK_INVALID, *lines)
    for script in (dead_piles._REDRIVE, dead_piles._MOVE_HEAD):
        await redis.script_load(script)  # or the first of them would be sent twice
    scripts = itertools.count(1)
    async with cutting(CuttingProxy(redis_server.port)) as proxy:
        victim = await asyncio.create_subprocess_exec(
            SCRIPTS / "kafkastore",
            *("dead", "redrive", topic),
            env=os.environ | environ | {"REDIS_URL": f"{proxy.url}/0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        FAULTS[fault](proxy, lambda data: b"EVALSHA" in data and next(scripts) == 2, victim.kill)
        async with asyncio.timeout(60):
            _, said = await victim.communicate()
        assert proxy.faults == 1
        answered = fault == "its reply is lost" and topic == "clicks"
        assert victim.returncode == (-signal.SIGKILL if "killed" in fault else 0 if answered else 1)
        assert b"Traceback" not in said
        assert (b"REDIS_URL" in said) is (victim.returncode == 1), "it says that Redis gave no answer"
        assert (len(await queued(redis)) == len(lines)) is answered
        async with asyncio.timeout(30):
            while fault == "it arrives late" and not proxy.late:
                await asyncio.sleep(0.05)
    await redrive_all(settings, topic)
    assert sorted(await queued(redis)) == sorted(lines)


async def test_of_two_at_once_one_moves_the_mark_and_the_other_nothing(settings, cemetery, redis):
    """The second has read the same mark: as a script that was held back, and arrives when all is done."""
    lines = await cemetery.bury(5, partition=0)
    async with open_piles(settings, "clicks") as first, open_piles(settings, "clicks") as second:
        await move(first[0], 5, redrive=True, on_moved=ignore)
        with pytest.raises(MarkMovedError):
            await move(second[0], 3, redrive=True, on_moved=ignore)
    assert await queued(redis) == lines
    await redis.rpush(CLICK_INVALID, *lines)
    async with (
        open_piles(settings, "click_invalid") as (first,),
        open_piles(settings, "click_invalid") as (second,),
    ):
        held_back = [letter async for letter in second.letters()]
        await move(first, 3, redrive=True, on_moved=ignore)
        with pytest.raises(MarkMovedError):
            await second.move(held_back, redrive=False)
    assert await redis.lrange(CLICK_INVALID, 0, -1) == lines[3:]


async def test_large_piles_come_back_in_order_by_small_steps(settings, cemetery, redis):
    lines = await cemetery.bury(9_000, partition=1) + await cemetery.bury(
        5, partition=1, line=b"%d " + b"x" * 600_000
    )
    steps = []
    async with open_piles(settings, "clicks") as piles:
        await move(piles[1], len(lines), redrive=True, on_moved=steps.append)
    assert steps == [4000, 4000, 1001, 1, 1, 1, 1]
    assert await queued(redis) == lines


async def test_a_refused_push_moves_no_mark(command, settings, cemetery, redis):
    lines = await cemetery.bury(3)
    await redis.set(CLICK_QUEUE, "not a list")
    refused = command("dead", "redrive")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "WRONGTYPE" in refused.stderr
    assert "Traceback" not in refused.stderr
    async with open_piles(settings, "clicks") as piles:
        letters = [letter async for letter in piles[0].letters()]
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await piles[0].move(letters, redrive=True)
    await redis.delete(CLICK_QUEUE)
    await redrive_all(settings)
    assert sorted(await queued(redis)) == sorted(lines)


async def test_a_long_queue_is_waited_for_and_given_up_where_nobody_takes_lines(
    settings, cemetery, redis, monkeypatch
):
    monkeypatch.setattr(redrive, "MOST_LINES", 10)
    lines = await cemetery.bury(50, partition=0)

    async def take():
        taken = []
        while len(taken) < len(lines):
            taken += await redis.lpop(CLICK_QUEUE, 10) or []
            assert await redis.llen(CLICK_QUEUE) <= 20
            await asyncio.sleep(0.01)
        return taken

    async with open_piles(settings, "clicks") as piles, asyncio.timeout(30):
        taking = asyncio.create_task(take())
        await move(piles[0], 50, redrive=True, on_moved=ignore, most_waiting=20)
        assert await taking == lines

    monkeypatch.setattr(redrive, "PATIENCE_SECONDS", 0.0)
    more = await cemetery.bury(50, partition=0)
    async with open_piles(settings, "clicks") as piles:
        with pytest.raises(QueueFullError, match="20 lines wait"):
            await move(piles[0], 50, redrive=True, on_moved=ignore, most_waiting=20)
    assert await queued(redis) == more[:20]


@pytest.mark.parametrize(("before", "after"), [(9, 3), (3, 9)])
async def test_the_letters_of_a_topic_made_anew_are_neither_passed_over_nor_taken_for_others(
    command, settings, cemetery, redis, before, after
):
    old = await cemetery.bury(before)
    await redrive_all(settings)
    await cemetery.delete()
    assert "no dead letters" in command("dead", "list").stderr
    await cemetery.create()
    new = await cemetery.bury(after)
    listed = command("dead", "list")
    assert sum(int(row[2]) for row in rows(listed)) == after
    assert "made anew" in listed.stderr
    for refused in (command("dead", "redrive"), command("dead", "drop", "--yes")):
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "Nothing was done" in refused.stderr
    assert len(await queued(redis)) == before
    assert command("dead", "redrive", "--recreated").returncode == 0
    assert sorted((await queued(redis))[before:]) == sorted(new)
    assert sorted((await queued(redis))[:before]) == sorted(old)
    assert command("dead", "list").stderr == "no dead letters\n"


async def test_what_retention_took_is_said_until_the_mark_moves(command, settings, cemetery, redis):
    lines = await cemetery.bury(10, partition=0)
    async with open_piles(settings, "clicks") as piles:
        await move(piles[0], 2, redrive=True, on_moved=ignore)
    await cemetery.expire(6)
    listed = command("dead", "list")
    assert [row[2] for row in rows(listed)] == ["4"]
    assert "partition 0: Kafka's retention has removed offsets 2 to 5" in listed.stderr
    await redrive_all(settings)
    assert await queued(redis) == lines[:2] + lines[6:]

    await cemetery.bury(5, partition=0)
    await cemetery.expire(15)
    assert "removed offsets 10 to 14" in command("dead", "redrive").stderr
    assert command("dead", "list").stderr == "no dead letters\n"
    new = await cemetery.bury(1, partition=0)
    await redrive_all(settings)
    assert await queued(redis) == lines[:2] + lines[6:] + new

    await cemetery.bury(3, partition=1)
    await cemetery.expire(3, partition=1)
    unseen = command("dead", "list").stderr.splitlines()
    assert unseen[0].startswith("clicks.dead, partition 1: Kafka's retention has removed offsets 0 to 2")
    assert unseen[1:] == ["no dead letters"]


async def test_what_was_never_committed_is_no_letter(settings, cemetery, redis, topic_prefix):
    lines = await cemetery.bury(3, partition=0)
    async with AIOKafkaProducer(
        bootstrap_servers=settings.kafka_url, transactional_id=topic_prefix
    ) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(cemetery.topic, b"taken back", partition=0)
        await producer.abort_transaction()
        await producer.begin_transaction()
        await producer.send_and_wait(cemetery.topic, b"not yet there", partition=0)
        await redrive_all(settings)
        assert await queued(redis) == lines
        await producer.commit_transaction()
    await redrive_all(settings)
    assert await queued(redis) == [*lines, b"not yet there"]


async def test_marks_are_found_in_whichever_redis_has_them(environ, command, cemetery, redis_server, redis):
    """Two databases of one server, named in the other order the second time."""
    first, second = (f"redis://127.0.0.1:{redis_server.port}/{database}" for database in (0, 1))
    await cemetery.bury(6)
    assert (
        command("dead", "redrive", REDIS_URL_CLICKSTORE_1=first, REDIS_URL_CLICKSTORE_2=second).returncode
        == 0
    )
    swapped = {"REDIS_URL_CLICKSTORE_1": second, "REDIS_URL_CLICKSTORE_2": first}
    assert "no dead letters" in command("dead", "list", **swapped).stderr
    more = await cemetery.bury(3)
    assert "3 letters are back" in command("dead", "redrive", **swapped).stdout
    assert sorted((await queued(redis))[6:]) == sorted(more), "they follow their mark"


async def test_a_line_that_kafka_takes_in_no_form_is_listed_and_comes_back_too(command, redis):
    await redis.rpush(CLICK_QUEUE, TOO_LARGE)
    assert command("run", "--until-empty").returncode == 0
    assert rows(command("dead", "list"))[0][:3] == ["click_invalid", "refused by Kafka", "1"]
    shown = command("dead", "show", "click_invalid").stdout
    assert "bytes more" in shown
    assert len(shown) < 3_000
    assert command("dead", "redrive").stdout == "1 letter is back in the queue\n"
    assert await queued(redis) == [TOO_LARGE]
    await redis.lmove(CLICK_QUEUE, CLICK_INVALID, "LEFT", "RIGHT")
    assert "1 letter dropped" in command("dead", "drop", "--yes").stdout
    assert not await redis.exists(CLICK_INVALID)


async def test_one_reason_alone_comes_back_only_from_in_front(command, cemetery, redis):
    mended = await cemetery.bury(6, reason="unknown topic")
    await cemetery.bury(6, reason="an empty field")
    by_reason = ("dead", "redrive", "--reason", "unknown topic")
    assert command(*by_reason).stdout == "6 letters are back in the queue\n"
    assert sorted(await queued(redis)) == sorted(mended)
    assert [row[1:3] for row in rows(command("dead", "list"))] == [["an empty field", "6"]]
    await cemetery.bury(1, reason="unknown topic", partition=2)
    refused = command(*by_reason)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "1 letter with this reason" in refused.stderr
    assert len(await queued(redis)) == 6


async def test_drop_asks_and_passes_over_what_was_there(environ, command, cemetery, redis):
    await cemetery.bury(4)
    unasked = command("dead", "drop")
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr

    def answer(said):
        """Answer on a terminal."""
        ours, theirs = pty.openpty()
        os.write(ours, said)
        try:
            return subprocess.run(
                [SCRIPTS / "kafkastore", "dead", "drop", "clicks"],
                env=os.environ | environ,
                stdin=theirs,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        finally:
            os.close(ours)
            os.close(theirs)

    refused = answer(b"n\n")
    assert refused.returncode == 1
    assert "Nothing was dropped" in refused.stderr
    assert [row[2] for row in rows(command("dead", "list"))] == ["4"]
    dropped = answer(b"y\n")
    assert (dropped.returncode, dropped.stdout.strip()) == (0, "4 letters dropped")
    new = await cemetery.bury(2)
    assert "2 letters are back" in command("dead", "redrive").stdout
    assert sorted(await queued(redis)) == sorted(new)


@pytest.mark.parametrize("action", ["list", "redrive"])
@pytest.mark.parametrize("away", ["REDIS_URL", "KAFKA_URL"])
def test_a_server_that_is_away_is_one_sentence_with_the_cure(command, action, away):
    nowhere = {"REDIS_URL": "redis://127.0.0.1:1/0", "KAFKA_URL": "kafka://127.0.0.1:1"}[away]
    done = command("dead", action, **{away: nowhere})
    assert (done.returncode, done.stdout) == (1, "")
    assert away in done.stderr
    assert done.stderr.count("\n") == 1


async def test_letters_of_others_are_listed_only_by_their_name(command, cemetery):
    """Without a prefix every topic of the cluster is in sight."""
    await cemetery.bury(2)
    assert rows(command("dead", "list", KAFKA_PREFIX="")) == []
    by_name = rows(command("dead", "list", cemetery.topic, KAFKA_PREFIX=""))
    assert [row[:3] for row in by_name] == [[cemetery.topic, "unknown topic", "2"]]


def test_a_topic_that_is_not_there_is_wrong_use(command, cemetery):
    done = command("dead", "show", "cilcks")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "`cilcks.dead` is not there: clicks.dead, click_invalid are.\n"


async def test_a_reader_who_has_seen_enough_is_no_failure_of_kafka(environ, cemetery):
    """As with `| head -1`: far more is written than a pipe holds, and nobody reads on."""
    await cemetery.bury(1_000, line=b"%d" + b"x" * 1_000)
    ours, theirs = os.pipe()
    show = await asyncio.create_subprocess_exec(
        SCRIPTS / "kafkastore",
        *("dead", "show", "--limit", "1000"),
        env=os.environ | environ,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    with os.fdopen(ours, "rb") as seen:
        line = await asyncio.to_thread(seen.readline)
    assert line.startswith(b"clicks.dead/0/0 ")
    async with asyncio.timeout(60):
        assert (await show.communicate())[1] == b""


@given(line=st.binary(max_size=3_000), reason=st.text(max_size=50))
def test_nothing_in_a_letter_is_obeyed_by_a_terminal(line, reason):
    shown = readable(Letter("clicks.dead", 0, 7, 1_769_860_800_000, "decode", reason, line, Mark(7, "")))
    assert shown.isprintable()


async def redrive_all(settings, topic="clicks"):
    async with open_piles(settings, topic) as piles:
        for pile in piles:
            await move(pile, 1_000_000, redrive=True, on_moved=ignore)


def ignore(_letters):
    pass
