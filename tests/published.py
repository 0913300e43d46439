"""What consumers may rely on: every JSON value that a test makes or reads is as its type's schema says.

A value is checked where it is made (conftest, for what runs within the tests) and where it is read (kafka_reader, for
what our processes wrote; consumers_world, for what a test itself puts there as an event).
"""

import json
from pathlib import Path

from jsonschema_rs import validator_for

ROOT = Path(__file__).parent.parent
SCHEMAS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "docs" / "schemas").glob("*.json")
}
VALIDATORS = {name: validator_for(schema, validate_formats=True) for name, schema in SCHEMAS.items()}


def published(value):
    """Give the event of a JSON value; raises ValidationError where it is not as the schema of its type says."""
    event = json.loads(value)
    VALIDATORS[event["event_type"]].validate(event)
    return event


def published_record(record):
    """Give the event of a record in JSON, which its headers name as it does; None for other records."""
    value, headers = record.value(), dict(record.headers() or ())
    if headers.get("content-type") != b"application/json":
        assert not (headers and is_event(value)), "an event in JSON whose headers do not say so"
        return None
    event = published(value)
    assert headers["ce_type"].decode() == f"onward.{event['event_type']}"
    assert headers["ce_id"].decode() == event["event_id"]
    assert headers["ce_time"].decode() == event["clicked_at"]
    return event


def is_event(value):
    return value is not None and value.startswith(b'{"schema"')
