"""A key's hash is the one that every Kafka client computes."""

from aiokafka.partitioner import murmur2 as aiokafkas
from hypothesis import given
from hypothesis import strategies as st

from kafkastore.murmur2 import murmur2


@given(st.binary(max_size=200))
def test_a_hash_is_that_of_another_client(key):
    assert murmur2(key) == aiokafkas(key) & 0xFFFFFFFF
