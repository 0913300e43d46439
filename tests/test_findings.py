"""`kafkastore check`: what is wrong, what it costs, and what to do, a sentence each."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from collector.persistence import Persistence, persistence_of, weaknesses
from embedded.redis import running_redis
from kafkastore.checkpoint import CHECKPOINTS
from kafkastore.findings import findings, topic_findings
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import Cluster, Topic, ensure_topics, look_at_cluster, topics_of

GOOD = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false", "cleanup.policy": "delete"}
COMPACT = GOOD | {"cleanup.policy": "compact"}


SAYS_NOTHING = Persistence(appendonly=None, appendfsync=None, maxmemory_policy=None)


def aof_on(appendfsync, maxmemory_policy):
    return Persistence(appendonly=True, appendfsync=appendfsync, maxmemory_policy=maxmemory_policy)


def aof_off(appendfsync, maxmemory_policy):
    return Persistence(appendonly=False, appendfsync=appendfsync, maxmemory_policy=maxmemory_policy)


def texts(found):
    return [(finding.fatal, finding.text) for finding in found]


def found_in(*, brokers=3, exactly_once=True, **topics):
    named = {name.replace("_", "."): topic for name, topic in topics.items()}
    return texts(topic_findings(Cluster(brokers, named), exactly_once=exactly_once))


def test_topics_that_outlive_a_broker_are_not_spoken_of():
    assert found_in(clicks=Topic(3, GOOD), onward_batches=Topic(5, COMPACT)) == []
    assert found_in() == [], "before the first run there is nothing to find"


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        (Topic(2, COMPACT), "replication 2 (wanted: 3 or more)"),
        (Topic(3, COMPACT | {"min.insync.replicas": "1"}), "min.insync.replicas 1 (wanted: 2 or more)"),
        (
            Topic(3, COMPACT | {"unclean.leader.election.enable": "true"}),
            "unclean.leader.election.enable true",
        ),
        (Topic(3, GOOD), "cleanup.policy delete (wanted: compact)"),
        (Topic(3, GOOD | {"cleanup.policy": "compact,delete"}), "cleanup.policy compact,delete"),
        (Topic(1, {}), "replication 1"),
    ],
)
def test_what_a_topic_could_lose_is_one_finding_and_a_warning_where_there_is_one_broker(topic, said):
    ((fatal, text),) = found_in(onward_batches=topic)
    assert fatal
    assert said in text
    assert found_in(brokers=1, onward_batches=topic) == [(False, text)]


def test_several_faults_of_a_topic_are_one_finding():
    ((_, text),) = found_in(onward_batches=Topic(1, GOOD | {"min.insync.replicas": "1"}))
    assert text.count("wanted") == 3


def test_checkpoints_that_are_missing_beside_other_topics_are_a_finding():
    ((fatal, text),) = found_in(clicks=Topic(3, GOOD))
    assert fatal
    assert f"{CHECKPOINTS} is missing" in text
    assert found_in(clicks=Topic(3, GOOD), exactly_once=False) == []


@pytest.mark.parametrize(("days", "told"), [("6.5", True), ("7", False), ("-1", False)])
def test_a_topic_that_forgets_before_late_events_come_is_told(days, told):
    retention_ms = str(int(float(days) * 86_400_000)) if float(days) > 0 else days
    found = found_in(
        clicks=Topic(3, GOOD | {"retention.ms": retention_ms}),
        onward_batches=Topic(3, COMPACT | {"retention.ms": "1"}),
    )
    assert [(fatal, "removed at once" in text) for fatal, text in found] == [(False, True)] * told


async def test_check_looks_at_real_topics_and_creates_none(apache_kafka_cluster, topic_prefix):
    settings = KafkastoreSettings(
        kafka_url=apache_kafka_cluster.url, kafka_prefix=topic_prefix, kafka_partitions=1
    )
    assert await look_at_cluster(settings) == Cluster(3, {})
    await ensure_topics(settings)
    cluster = await seen(settings, {*topics_of(settings), CHECKPOINTS})
    assert texts(topic_findings(cluster, exactly_once=True)) == []
    other = settings.model_copy(update={"kafka_prefix": f"{topic_prefix}other."})
    careless = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    await create(other, NewTopic(other.kafka_prefix + "clicks", 1, 1, topic_configs=careless))
    missing, ((fatal, text)) = texts(topic_findings(await seen(other, {"clicks"}), exactly_once=True))
    assert CHECKPOINTS in missing[1]
    assert fatal
    assert text.count("wanted") == 3


async def seen(settings, topics):
    """Look until whichever broker is asked knows the topics."""
    async with asyncio.timeout(30):
        while set((cluster := await look_at_cluster(settings)).topics) != topics:
            await asyncio.sleep(0.02)
    return cluster


async def create(settings, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_url)
    await admin.start()
    answer = await admin.create_topics([topic])
    assert not answer.topic_errors[0][1], answer
    await admin.close()


@pytest.mark.parametrize(
    ("known", "wrong", "costly", "kept"),
    [
        (aof_on("always", "noeviction"), "", "", "nothing is lost and nothing doubled"),
        (aof_on("everysec", "noeviction"), "", "", "the journal still has"),
        (aof_on("no", "noeviction"), "", "appendfsync no", "the journal still has"),
        (aof_off("everysec", "noeviction"), "", "appendonly no", "the journal still has"),
        (aof_on("always", "allkeys-lru"), "maxmemory-policy allkeys-lru", "", "nothing doubled"),
        (SAYS_NOTHING, "", "", "the journal still has"),
    ],
)
def test_what_a_redis_promises_is_said(known, wrong, costly, kept):
    found = texts(weaknesses(known, log_wanted_by=None))
    assert [fatal for fatal, _ in found] == [True] * bool(wrong) + [False] * bool(costly)
    assert wrong + costly in "".join(text for _, text in found)
    assert kept in known.promise(claim_durable=False)


def test_durable_claims_need_a_log_and_promise_more():
    everysec = aof_on("everysec", "noeviction")
    assert not texts(weaknesses(everysec, log_wanted_by="CLAIM_DURABLE=1"))
    assert everysec.promise(claim_durable=True) == "nothing is lost and nothing doubled"
    assert texts(weaknesses(aof_off(None, "noeviction"), log_wanted_by="CLAIM_DURABLE=1")) == [
        (True, "has no append-only file to wait for: set appendonly yes, or not CLAIM_DURABLE=1.")
    ]


@pytest.mark.parametrize(
    ("hidden", "known"),
    [
        ((), aof_on("always", "allkeys-lru")),
        (("CONFIG",), aof_on(None, "allkeys-lru")),
        (("CONFIG", "INFO"), SAYS_NOTHING),
    ],
)
async def test_a_real_redis_is_asked_and_may_keep_its_settings_to_itself(tmp_path, hidden, known):
    extra = ["--maxmemory-policy", "allkeys-lru"]
    for command in hidden:
        extra += ["--rename-command", command, ""]
    with running_redis(tmp_path, extra=extra, appendfsync="always") as server:
        async with Redis.from_url(server.url) as redis:
            assert await persistence_of(redis) == known


async def test_check_says_what_holds_and_fails_only_for_what_does_not_work(
    apache_kafka, redis_server, topic_prefix
):
    settings = KafkastoreSettings(
        kafka_url=apache_kafka.url, kafka_prefix=topic_prefix, redis_url=redis_server.url
    )
    ((fatal, text),) = texts(await findings(settings))
    assert not fatal
    assert text.startswith("Redis 1: should it go back in time, nothing is lost that the journal still has")
    away = KafkastoreSettings(kafka_url="kafka://127.0.0.1:1", redis_url="redis://127.0.0.1:1/0")
    assert [(fatal, text.partition(" ")[0]) for fatal, text in texts(await findings(away))] == [
        (True, "Redis"),
        (True, "Kafka"),
    ]
