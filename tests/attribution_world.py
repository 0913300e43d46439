"""Clicks and installs of made-up devices for the tests of attribution, and what must come of them."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from aiokafka import TopicPartition
from consumers_world import EXAMPLES, made_up, query
from kafka_reader import read_committed

from collector.event import encode_params
from consumers.sink import Batch, Span
from kafkastore.lookup_keys import lookup_keys
from kafkastore.message import Message

TOPICS = ("clicks", "inapp", "onward.batches")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ADDRESS = "203.0.113.42"
CLICKS, INAPP = TopicPartition("clicks", 0), TopicPartition("inapp", 1)


def new_id():
    return str(uuid.uuid4())


def keys_of(adid, address=ADDRESS, platform="ios"):
    return lookup_keys(adid, address, platform)


def click(key, at=NOON, window=60, **fields):
    """Give a click's value; `window` in minutes."""
    till = None if window is None else (at + window * MINUTE).replace(microsecond=0).isoformat()
    return EXAMPLES["click"] | {
        "event_id": new_id(),
        "clicked_at": at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z",
        "lookup_key": key,
        "attr_window_from": at.replace(microsecond=0).isoformat(),
        "attr_window_till": till,
        **fields,
    }


def install(adid=None, at=NOON + MINUTE, address=ADDRESS, **fields):
    """Give an install's value."""
    keys = keys_of(adid, address)
    return EXAMPLES["in-app"] | {
        "event_id": new_id(),
        "clicked_at": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "adid": adid,
        "lookup_keys": keys or None,
        "lookup_key": keys[0] if keys else None,
        "params": {} if adid is None else {"adid": adid},
        **fields,
    }


def message(path, at, params, **meta):
    """Give a value in the original's text."""
    whole = {"bot_name": None, "country": "DE", "device": None, "device_name": None, "ip": ADDRESS}
    whole |= {"klag": 0, "platform": "ios", "ts": int(at.timestamp()), "query": encode_params(params)}
    return Message(path=path, **(whole | meta)).encode()


def click_message(key, at=NOON, window=60, **params):
    given = {
        "lookup_key": key.encode(),
        "attr_window_from": at.isoformat().encode(),
        "attr_window_till": (at + window * MINUTE).isoformat().encode(),
        "campaign_link_id": b"46",
        "network": b"7games",
    }
    return message("/t/click", at, given | params)


def install_message(adid=None, at=NOON + MINUTE, **meta):
    return message("/t/ist", at, {"adid": adid.encode()} if adid else {"x": b"1"}, **meta)


def records_of(partition, values, begin=0):
    return [
        SimpleNamespace(
            topic=partition.topic,
            partition=partition.partition,
            offset=begin + number,
            key=b"key",
            value=value if isinstance(value, bytes | None) else made_up(value),
            headers=(),
        )
        for number, value in enumerate(values)
    ]


class Writer:
    """Writes values by a sink as the loop does: what it wrote before moves the positions."""

    def __init__(self, sink):
        self.sink = sink
        self.next = {}

    async def write(self, **values_by_topic):
        """Write one batch; `clicks=[…]`, `inapp=[…]`."""
        spans = []
        for topic, values in values_by_topic.items():
            partition = {"clicks": CLICKS, "inapp": INAPP}[topic]
            begin = self.next.get(partition, 0)
            spans.append(Span(partition, begin, begin + len(values), records_of(partition, values, begin)))
        dead = await self.sink.write(Batch("cluster", spans))
        self.next |= {span.partition: span.end for span in spans}
        return dead


async def attributed(database_url):
    """Give click and what it was matched by, by install."""
    rows = await query(database_url, "SELECT install_id, click_id, matched_by FROM attributions")
    return {str(install): (str(click), by) for install, click, by in rows}


async def count(database_url, table):
    return (await query(database_url, f"SELECT count(*) FROM {table}"))[0][0]  # noqa: S608 (the test's own word)


def macs(bootstrap, prefix):
    """Give what Kafka has of /t/mac: JSON values, or messages, in no certain order."""
    found = []
    for record in read_committed(bootstrap, f"{prefix}inapp"):
        value = record.value() or b""
        if value.startswith(b"/t/mac "):
            found.append(Message.decode(value))
        elif value.startswith(b"{") and (event := json.loads(value))["path"] == "/t/mac":
            found.append(event)
    return found
