"""docs/consuming.md: its samples are the published events, its recipes show what was committed and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import chdb
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from embedded.apache_jars import jars, java
from embedded.apache_kafka import VERSION

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "consuming.md").read_text("utf-8")
VALUES = [
    json.loads(line)["value"]
    for line in (ROOT / "tests" / "data" / "events.jsonl").read_text("utf-8").splitlines()
]
CLICK = VALUES[0]
RECIPE_SECONDS = 60


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def clicks(*numbers):
    return [{**CLICK, "event_id": f"019c13ec-9e7b-7a01-8000-{number:012x}"} for number in numbers]


@pytest.fixture(scope="module")
def environ(apache_kafka, tmp_path_factory):
    """Give the environment of a recipe: its topic has three committed clicks, with an aborted one among them."""
    folder = tmp_path_factory.mktemp("consuming")
    script = (
        folder / "kafka-console-consumer.sh"
    )  # as in Kafka's distribution, of which Maven has the jars only
    main = "org.apache.kafka.tools.consumer.ConsoleConsumer"
    script.write_text(f'#!/bin/sh\nexec "{java()}" -cp "{jars(VERSION)}/*" {main} "$@"\n')
    script.chmod(0o755)
    bootstrap = apache_kafka.bootstrap
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for created in admin.create_topics([NewTopic("consuming.clicks", 1)]).values():
        created.result(timeout=30)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "consuming"})
    producer.init_transactions(30)
    for batch, end in (
        (clicks(1, 2), producer.commit_transaction),
        (clicks(3), producer.abort_transaction),
        (clicks(4), producer.commit_transaction),
    ):
        producer.begin_transaction()
        for click in batch:
            producer.produce(
                "consuming.clicks", json.dumps(click, ensure_ascii=False), key=click["lookup_key"]
            )
        producer.flush(30)
        end(30)
    return {
        **os.environ,
        "BROKERS": bootstrap,
        "PREFIX": "consuming.",
        "PATH": f"{folder}:{os.environ['PATH']}",
    }


def seen(command, environ, **options):
    """Run a recipe; gives the last digit of every event id that it shows."""
    told = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=RECIPE_SECONDS, check=True, **options
    )
    return [int(found) for found in re.findall(r"019c13ec-9e7b-7a01-8000-00000000000(\d)", told.stdout)]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value["event_type"])
def test_the_sample_of_each_type_is_the_published_event(value):
    assert value in [json.loads(block) for block in blocks("json")]


def test_kcat_shows_what_was_committed(environ):
    if shutil.which("kcat") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("There is no kcat: apt-get install kcat")
    (recipe,) = blocks("sh kcat")
    assert seen(["sh", "-ec", recipe], environ) == [1, 2, 4]


def test_kafkas_console_consumer_shows_what_was_committed(environ):
    (recipe,) = blocks("sh console")
    assert seen(["sh", "-ec", recipe], environ) == [1, 2, 4]


@pytest.mark.parametrize("library", ["aiokafka", "confluent-kafka"])
def test_a_client_reads_what_was_committed(environ, library):
    (recipe,) = blocks(f"python {library}")
    assert seen([sys.executable, "-c", recipe], environ) == [1, 2, 4]


def test_clickhouse_understands_its_statements_and_reads_a_click():
    (block,) = blocks("sql clickhouse")
    statements = [statement for statement in block.split(";\n") if statement.strip()]
    for statement in statements:
        quoted = statement.replace("\\", "\\\\").replace("'", "\\'")
        assert chdb.query(f"SELECT formatQuery('{quoted}')").bytes()  # parses it, or raises
    *_, view = statements
    row = json.dumps(CLICK, ensure_ascii=False).replace("\\", "\\\\").replace("'", "\\'")
    select = view.partition(" AS\n")[2].replace("FROM clicks_raw", f"FROM (SELECT '{row}' AS value)")
    (read,) = json.loads(chdb.query(select, "JSON").bytes())["data"]
    assert {name: read[name] for name in ("event_id", "country", "device", "visitor_id")} == {
        name: CLICK[name] for name in ("event_id", "country", "device", "visitor_id")
    }
    assert (read["clicked_at"], int(read["link_id"])) == ("2026-01-31 12:00:00.123", CLICK["link_id"])


def test_the_connector_is_json_and_reads_committed():
    (block,) = blocks("json connect")
    config = json.loads(block)["config"]
    assert config["consumer.override.isolation.level"] == "read_committed"
    assert config["topics"] == "clicks"


@pytest.mark.parametrize("language", ["sql flink", "sql ksqldb"])
def test_every_column_of_a_stream_is_a_key_of_the_click(language):
    (block,) = blocks(language)
    columns = set(re.findall(r"(\w+) (?:STRING|VARCHAR|BIGINT|TIMESTAMP_LTZ|MAP)\b", block))
    assert {"event_id", "link_id", "visitor_id"} <= columns <= CLICK.keys()
