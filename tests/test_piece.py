"""Which partition a key is in: where Kafka's Java client, and so every reader, looks for it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from aiokafka.partitioner import murmur2

from embedded.apache_jars import jars, java
from embedded.apache_kafka import VERSION
from embedded.server import ServerUnavailable
from kafkastore.piece import partition_of

# <key in hex> <hash> <partition of 1> <of 6> <of 1000>, written by tests/java/Murmur2.java.
LINES = (Path(__file__).parent / "data" / "murmur2.txt").read_text("ascii").splitlines()
VECTORS = [
    (bytes.fromhex(key), [int(number) for number in numbers])
    for key, *numbers in (line.split(" ") for line in LINES)
]


def test_every_key_is_where_the_java_client_puts_it():
    for key, (signed, *partitions) in VECTORS:
        assert murmur2(key) == signed % 2**32, key
        assert [partition_of(key, count) for count in (1, 6, 1000)] == partitions, key


def test_the_vectors_are_of_every_length_and_of_our_keys():
    keys = {key for key, _ in VECTORS}
    assert {len(key) for key in keys} >= set(range(41))
    assert b"bb0ca0283abd536a7ae2941c6cde29dd" in keys, "the contract's lookup_key"
    assert any(byte >= 0x80 for key in keys for byte in key), "Java's bytes are signed"


def test_the_vectors_are_the_java_clients():
    if shutil.which("javac") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "There is no Java compiler: apt-get install openjdk-17-jdk-headless"
        )
    try:
        command = [java(), "-cp", f"{jars(VERSION)}/*", Path(__file__).parent / "java" / "Murmur2.java"]
    except ServerUnavailable as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    keys = "".join(f"{key.hex()}\n" for key, _ in VECTORS)
    told = subprocess.run(command, input=keys, capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.splitlines() == LINES
