"""What holds every other test's events to the published schemas does refuse what is not as they say."""

import json
from types import SimpleNamespace

import pytest
from jsonschema_rs import ValidationError
from published import ROOT, published, published_record

EXAMPLES = [
    json.loads(line)["value"]
    for line in (ROOT / "tests" / "data" / "events.jsonl").read_text("utf-8").splitlines()
]
CLICK = EXAMPLES[0]


def record(value, **headers):
    told = {
        "ce_id": value["event_id"],
        "ce_type": f"onward.{value['event_type']}",
        "ce_time": value["clicked_at"],
        "content-type": "application/json",
    } | {name.replace("content_type", "content-type"): text for name, text in headers.items()}
    return SimpleNamespace(
        value=lambda: json.dumps(value).encode(),
        headers=lambda: [(name, text.encode()) for name, text in told.items()],
    )


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: value["event_type"])
def test_a_published_event_is_as_its_schema_says(value):
    assert published_record(record(value)) == value


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("klag_ms", "37"),
        ("link_id", 46.5),
        ("user_agent", None),
        ("event_id", "no UUID"),
        ("clicked_at", "2026-01-31T12:00:00Z"),
        ("bot_class", "human"),
        ("params", {"x": 1}),
        ("schema", "click/2"),
    ],
)
def test_a_field_that_is_not_as_its_schema_says_is_refused(field, wrong):
    with pytest.raises(ValidationError, match=field):
        published(json.dumps(CLICK | {field: wrong}))


@pytest.mark.parametrize("field", CLICK)
def test_a_missing_field_is_refused(field):
    with pytest.raises((ValidationError, KeyError), match=field):
        published(json.dumps({name: value for name, value in CLICK.items() if name != field}))


@pytest.mark.parametrize(
    "headers",
    [
        {"ce_id": "another"},
        {"ce_type": "onward.orphan"},
        {"ce_time": "2026-01-31"},
        {"content_type": "text/plain"},
    ],
    ids=str,
)
def test_headers_that_say_something_else_than_the_event_are_refused(headers):
    with pytest.raises(AssertionError):
        published_record(record(CLICK, **headers))
