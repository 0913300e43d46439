"""The /t/mac that an attribution is told by: an in-app event that names an install and its click. Pure.

In JSON it is the install's own event with another id, name and params, and the click's network. In text its params
are the two whole messages, as the original had them; of a click that came in JSON there is only the id.
"""

import uuid
from dataclasses import replace
from typing import Final

import msgspec

from collector.event import encode_params, utc_time
from consumers.attribution_events import Install, is_text
from kafkastore.message import Message
from kafkastore.record import Record, cloud_event_headers, encode_value

MAC_PATH: Final = "/t/mac"


def mac_id(install_id: str, click_id: str) -> str:
    """Give the event id: the same whoever attributes, and however often."""
    return str(uuid.uuid5(uuid.UUID(install_id), click_id))


def mac_value(
    install: Install, raw: bytes, *, click_id: str, network: str | None, click_message: bytes | None
) -> bytes:
    """Give the value, in the install's format. `raw` is the install's own value."""
    if isinstance(install.value, Message):
        params = encode_params({"click": click_message or click_id.encode(), "install": raw})
        return replace(install.value, path=MAC_PATH, query=params).encode()
    value = msgspec.structs.replace(
        install.value,
        event_id=mac_id(install.event_id, click_id),
        event="mac",
        path=MAC_PATH,
        network=network,
        params={"click": click_id, "install": install.event_id},
    )
    return encode_value(value)


def mac_record(
    event_id: str, *, topic: str, key: bytes | None, value: bytes, at_ms: int, now_ms: int
) -> Record:
    """Give what goes to Kafka: the install's key and time."""
    return Record(
        topic=topic,
        key=key,
        value=value,
        # A broker refuses times to come.
        timestamp_ms=min(at_ms, now_ms),
        headers=cloud_event_headers(
            topic, "inapp", event_id, utc_time(at_ms), "adtekio" if is_text(value) else "json"
        ),
    )
