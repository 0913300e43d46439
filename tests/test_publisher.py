"""The Kafka end: a batch is there whole or not at all, and the last checkpoint tells which was the last."""

import asyncio
import uuid

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from kafka_reader import read_committed, values

from kafkastore.checkpoint import CHECKPOINTS, Checkpoint
from kafkastore.connection import PublishError
from kafkastore.destination import Destination
from kafkastore.outgoing import Outgoing
from kafkastore.publisher import open_publisher
from kafkastore.queue import Batch
from kafkastore.record import Record
from kafkastore.refusal import RefusedError
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import ensure_topics


@pytest.fixture
async def settings(apache_kafka, topic_prefix):
    settings = KafkastoreSettings(kafka_url=apache_kafka.url, kafka_prefix=topic_prefix, kafka_partitions=2)
    await ensure_topics(settings)
    return settings


@pytest.fixture
def queue_id():
    return str(uuid.uuid4())


def outgoing(batch_id, *records, invalid=()):
    batch = Batch(batch_id, Destination("", "", ""), [])
    return Outgoing(batch, dict(enumerate(records)), invalid)


async def last_batch_id(publisher):
    checkpoint = await publisher.last_checkpoint()
    return checkpoint and checkpoint.batch_id


def record(value, key=b"key", topic="clicks"):
    return Record(topic, key, value, 1769860800123, [("ce_id", b"1")])


async def test_a_batch_arrives_whole_with_its_checkpoint(apache_kafka, settings, queue_id, topic_prefix):
    async with open_publisher(settings, queue_id) as publisher:
        assert await last_batch_id(publisher) is None
        await publisher.publish(
            outgoing("batch-1", record(b"a"), record(b"b"), record(b"raw", None, "clicks.dead"))
        )
        await publisher.publish(outgoing("batch-2", record(b"c")))
        assert await last_batch_id(publisher) == "batch-2"
    clicks = read_committed(apache_kafka.bootstrap, topic_prefix + "clicks")
    assert [click.value() for click in clicks] == [b"a", b"b", b"c"]
    assert clicks[0].timestamp()[1] == 1769860800123
    assert clicks[0].headers() == [("ce_id", b"1")]
    assert {click.partition() for click in clicks} == {(murmur2(b"key") & 0x7FFFFFFF) % 2}
    assert values(apache_kafka.bootstrap, topic_prefix + "clicks.dead") == [b"raw"]


async def test_more_than_one_request_holds_is_still_one_batch(apache_kafka, settings, queue_id, topic_prefix):
    many = [record(b"%d" % number * 1000, b"%d" % number) for number in range(2000)]
    async with open_publisher(settings, queue_id) as publisher:
        await publisher.publish(outgoing("batch", *many))
    arrived = values(apache_kafka.bootstrap, topic_prefix + "clicks")
    assert sorted(arrived) == sorted(one.value for one in many)


async def test_a_batch_whose_publisher_died_before_the_commit_is_not_there(
    apache_kafka, settings, queue_id, topic_prefix
):
    async with open_publisher(settings, queue_id) as publisher:
        await publisher.publish(outgoing("batch-1", record(b"a")))
    died = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_url, transactional_id=f"{topic_prefix}onward-{queue_id}"
    )
    await died.start()
    await died.begin_transaction()
    await died.send_and_wait(topic_prefix + "clicks", b"never", b"key")
    async with open_publisher(settings, queue_id) as publisher:
        assert await last_batch_id(publisher) == "batch-1"
        await publisher.publish(outgoing("batch-2", record(b"b")))
    assert values(apache_kafka.bootstrap, topic_prefix + "clicks") == [b"a", b"b"]
    await died.client.close()
    died._closed = True
    died._sender.sender_task.cancel()


async def test_a_publisher_that_was_followed_is_fenced(apache_kafka, settings, queue_id, topic_prefix):
    with pytest.raises(PublishError, match="Fenced"):
        async with open_publisher(settings, queue_id) as zombie:
            await zombie.publish(outgoing("batch-1", record(b"a")))
            async with open_publisher(settings, queue_id) as successor:
                await successor.publish(outgoing("batch-2", record(b"b")))
                await zombie.publish(outgoing("batch-3", record(b"c")))
    async with open_publisher(settings, queue_id) as publisher:
        assert await last_batch_id(publisher) == "batch-2"
    assert values(apache_kafka.bootstrap, topic_prefix + "clicks") == [b"a", b"b"]


async def test_a_checkpoint_behind_another_queues_open_transaction_is_waited_for(
    apache_kafka, settings, queue_id, topic_prefix
):
    """Two queues may share a partition of checkpoints; what one holds open hides the other's last commit."""
    checkpoints = topic_prefix + CHECKPOINTS
    partition = (murmur2(queue_id.encode()) & 0x7FFFFFFF) % 2
    other = AIOKafkaProducer(bootstrap_servers=settings.kafka_url, transactional_id=f"{topic_prefix}other")
    await other.start()
    await other.begin_transaction()
    await other.send_and_wait(checkpoints, b'{"batch_id":"x","at_ms":0}', b"other", partition)
    async with open_publisher(settings, queue_id) as publisher:
        await publisher.publish(outgoing("batch-1", record(b"a")))
    async with open_publisher(settings, queue_id) as successor:
        asking = asyncio.create_task(last_batch_id(successor))
        assert not (await asyncio.wait({asking}, timeout=1))[0], "not visible is not the same as not there"
        await other.commit_transaction()
        assert await asking == "batch-1"
    await other.stop()


async def test_the_last_checkpoint_is_found_however_far_back_it_is(settings, queue_id, topic_prefix):
    async with open_publisher(settings, queue_id) as publisher:
        await publisher.publish(outgoing("batch-1", record(b"a")))
    partition = (murmur2(queue_id.encode()) & 0x7FFFFFFF) % 2
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_url) as others:
        for number in range(3000):
            await others.send(topic_prefix + CHECKPOINTS, b"{}", b"%d" % number, partition)
    async with open_publisher(settings, queue_id) as publisher:
        assert await last_batch_id(publisher) == "batch-1"


async def test_one_refused_record_keeps_the_whole_batch_out(apache_kafka, settings, queue_id, topic_prefix):
    with pytest.raises(RefusedError):
        async with open_publisher(settings, queue_id) as publisher:
            await publisher.publish(outgoing("batch-1", record(b"a"), record(b"x" * 2_000_000, b"other")))
    async with open_publisher(settings, queue_id) as publisher:
        assert await publisher.last_checkpoint() is None
    assert values(apache_kafka.bootstrap, topic_prefix + "clicks") == []


async def test_a_checkpoint_says_which_lines_are_to_stay_in_redis(settings, queue_id):
    async with open_publisher(settings, queue_id) as publisher:
        noted = await publisher.publish(outgoing("batch-1", record(b"a"), invalid=(7, 3999)))
    async with open_publisher(settings, queue_id) as publisher:
        assert await publisher.last_checkpoint() == noted == Checkpoint("batch-1", noted.at_ms, (7, 3999))


async def test_kafka_that_is_away_is_a_publish_error():
    settings = KafkastoreSettings(kafka_url="kafka://127.0.0.1:1")
    async with asyncio.timeout(15):
        with pytest.raises(PublishError, match=r"Kafka at 127.0.0.1:1 cannot be reached .* mend KAFKA_URL"):
            async with open_publisher(settings, "queue"):
                pass
        with pytest.raises(PublishError, match="cannot be reached"):
            await ensure_topics(settings)


async def test_a_broker_without_transactions_names_the_cure_and_works_at_least_once(
    wheel_kafka, topic_prefix
):
    settings = KafkastoreSettings(kafka_url=wheel_kafka.url, kafka_prefix=topic_prefix)
    await ensure_topics(settings)
    with pytest.raises(PublishError, match="DELIVERY=at_least_once"):
        async with open_publisher(settings, "queue"):
            pass
    settings = settings.model_copy(update={"delivery": "at_least_once"})
    async with open_publisher(settings, "queue") as publisher:
        assert await last_batch_id(publisher) is None
        await publisher.publish(outgoing("batch", record(b"a"), record(b"b", b"other key")))
    assert sorted(values(wheel_kafka.bootstrap, topic_prefix + "clicks")) == [b"a", b"b"]
