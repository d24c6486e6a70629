"""Catching up: what a worker folds before it goes on is all there was, or the worker says so."""

from __future__ import annotations

import pytest
from brokers import Embedded
from confluent_kafka import KafkaException

from agents.stages import LogReader
from sinks.kafka import Delivery, KafkaSink


def test_a_log_is_read_to_where_it_is_asked_and_never_silently_less(
    embedded_kafka: Embedded, topic_prefix: str
) -> None:
    """A fold that lacked the last records would decide wrongly, so a log that ends too soon is an error."""
    topic = f"{topic_prefix}reports"
    embedded_kafka.create_topic(topic, 1)
    kafka, delivery = KafkaSink(embedded_kafka.bootstrap), Delivery()
    for number in range(5):
        kafka.send(delivery, topic, b"%d" % number, partition=0)
    kafka.wait(delivery)
    kafka.close()
    reader = LogReader(embedded_kafka.bootstrap, topic)
    assert [record.value for record in reader.read(0, 1, 4)] == [b"1", b"2", b"3"]
    assert [record.offset for record in reader.read(0, 0, 5)] == [0, 1, 2, 3, 4]
    assert list(reader.read(0, 5, 5)) == []
    with pytest.raises(KafkaException):
        list(reader.read(0, 0, 6))
