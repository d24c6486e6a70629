"""What the service takes for granted of any broker, on the real Kafka and on the embedded one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from brokers import Broker, Embedded, Kafka, KafkaElsewhere, metadata_version
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from agents.embedded_broker import PARTITION_MAX_BYTES, EmbeddedBroker, EmbeddedBrokerError

IN_2011_MS = 1_314_489_600_000  # 2011-08-28, when the recorded hurricane struck


def produce(
    broker: Broker, topic: str, values: list[bytes], partition: int = 0, timestamp_ms: int = IN_2011_MS
) -> None:
    failed: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 20 << 20, "linger.ms": 1})
    for value in values:
        producer.produce(
            topic,
            value,
            key=b"key",
            partition=0,
            timestamp=timestamp_ms,
            headers=[("source", b"hotline")],
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert producer.flush(120) == 0
    if failed:
        raise KafkaException(failed[0])


@contextmanager
def consuming(broker: Broker, topic: str, group: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # The embedded broker lets a group that lost a member wait for the session timeout less a second.
            "session.timeout.ms": 2_000 if broker.kind == "embedded" else 6_000,
            "heartbeat.interval.ms": 300,
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    try:
        yield consumer
    finally:
        consumer.close()


def take(consumer: Consumer, count: int) -> list[Message]:
    taken: list[Message] = []
    while len(taken) < count:
        message = consumer.poll(120)
        assert message is not None, f"{len(taken)} of {count} messages came within 120 s"
        if not message.error():
            taken.append(message)
    return taken


def values(messages: list[Message]) -> list[bytes]:
    return [message.value() for message in messages]


def test_what_is_produced_is_consumed_in_order_with_key_headers_and_time(broker, topic_prefix):
    topic = topic_prefix + "events"
    broker.create_topic(topic, 1, {"retention.ms": "-1"})
    sent = [b"%d" % n for n in range(500)]
    produce(broker, topic, sent)
    with consuming(broker, topic, topic_prefix + "group") as consumer:
        messages = take(consumer, len(sent))
    assert values(messages) == sent
    assert {message.offset() for message in messages} == set(range(500))
    assert {message.key() for message in messages} == {b"key"}
    assert {message.timestamp()[1] for message in messages} == {IN_2011_MS}
    assert messages[0].headers() == [("source", b"hotline")]


def test_a_consumer_that_returns_goes_on_after_its_last_commit(broker, topic_prefix):
    topic, group = topic_prefix + "events", topic_prefix + "group"
    broker.create_topic(topic, 1, {"retention.ms": "-1"})
    produce(broker, topic, [b"%d" % n for n in range(10)])
    with consuming(broker, topic, group) as first:
        read = take(first, 6)
        first.commit(message=read[3], asynchronous=False)
    with consuming(broker, topic, group) as second:
        assert values(take(second, 6)) == [b"4", b"5", b"6", b"7", b"8", b"9"]


def test_a_topic_has_the_partitions_that_were_asked_for(broker, topic_prefix):
    topic = topic_prefix + "events"
    broker.create_topic(topic, 7)
    found = Producer({"bootstrap.servers": broker.bootstrap}).list_topics(topic, timeout=10).topics[topic]
    assert sorted(found.partitions) == list(range(7))


def test_a_broker_that_was_stopped_refuses_and_comes_back_with_what_was_written(broker, topic_prefix):
    if isinstance(broker, KafkaElsewhere):
        pytest.skip("CITYBRAIN_TEST_KAFKA names a broker that is not ours to stop")
    topic, address = topic_prefix + "events", broker.bootstrap
    broker.create_topic(topic, 1, {"retention.ms": "-1"})
    produce(broker, topic, [b"before"])
    with consuming(broker, topic, topic_prefix + "old") as consumer:
        assert values(take(consumer, 1)) == [b"before"]
        consumer.commit(asynchronous=False)  # or the group, formed anew, would read it again
        broker.stop()
        with pytest.raises(KafkaException):
            Producer({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=0.5)
        broker.start()
        assert broker.bootstrap == address
        produce(broker, topic, [b"after"])
        assert values(take(consumer, 1)) == [b"after"]
    with consuming(broker, topic, topic_prefix + "new") as consumer:
        assert values(take(consumer, 2)) == [b"before", b"after"]


# ------------------------------------------------------------------------------------------- the real one only


def test_the_real_kafka_says_itself_that_it_is_version_4(kafka):
    assert metadata_version(kafka.bootstrap) >= 25
    if isinstance(kafka, Kafka):
        assert int(kafka.version.split(".")[0]) >= 4


def test_real_kafka_refuses_a_time_more_than_an_hour_ahead(kafka, topic_prefix):
    """Why a recording is shifted into the past or to now, never beyond."""
    topic = topic_prefix + "events"
    kafka.create_topic(topic)
    with pytest.raises(KafkaException, match="INVALID_TIMESTAMP"):
        produce(kafka, topic, [b"early"], timestamp_ms=4_102_444_800_000)  # 2100-01-01


def test_real_kafka_takes_ten_megabytes_only_where_the_topic_says_so(kafka, topic_prefix):
    narrow, wide = topic_prefix + "narrow", topic_prefix + "wide"
    kafka.create_topic(narrow)
    kafka.create_topic(wide, 1, {"max.message.bytes": str(17 << 20), "retention.ms": "-1"})
    with pytest.raises(KafkaException, match="MSG_SIZE_TOO_LARGE"):
        produce(kafka, narrow, [bytes(10 << 20)])
    produce(kafka, wide, [bytes(10 << 20)])
    with consuming(kafka, wide, topic_prefix + "group") as consumer:
        assert len(take(consumer, 1)[0].value()) == 10 << 20


# --------------------------------------------------------------------------------------- the embedded one only


def test_the_embedded_broker_drops_the_oldest_beyond_its_bound(embedded_kafka: Embedded, topic_prefix):
    """The bound that its documentation states, so that a change in librdkafka is noticed."""
    topic = topic_prefix + "events"
    embedded_kafka.create_topic(topic)
    each = 512 * 1024
    for _ in range(2 * PARTITION_MAX_BYTES // each):
        produce(embedded_kafka, topic, [bytes(each)])
    with consuming(embedded_kafka, topic, topic_prefix + "group") as consumer:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
    assert high == 2 * PARTITION_MAX_BYTES // each
    assert PARTITION_MAX_BYTES - 2 * each < (high - low) * each <= PARTITION_MAX_BYTES


def test_the_embedded_broker_tells_what_it_cannot_do():
    with EmbeddedBroker({"a": 2}) as broker:
        with pytest.raises(EmbeddedBrokerError, match="'a': Broker: Topic already exists"):
            broker.create_topic("a", 2)
        with pytest.raises(EmbeddedBrokerError, match="'b': 0 partitions; at least 1"):
            broker.create_topic("b", 0)
        broker.create_topic("b", 1)
    with pytest.raises(EmbeddedBrokerError, match="not running"):
        broker.create_topic("c", 1)
