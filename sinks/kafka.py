"""Producing to Kafka at a high rate, and knowing when a batch has arrived."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException, Producer

from sinks.errors import SinkUnavailable

_MAX_WAITING = 100_000
_MAX_WAITING_KB = 256 << 10
_POLL_S = 0.1

LIBRDKAFKA_LOG = logging.getLogger("librdkafka")
"""Takes what the client would print to standard error by itself; given to every client of a worker."""


class Delivery:
    """A batch on its way: how many of its records have not arrived yet, and the first that failed."""

    def __init__(self) -> None:
        self.waiting = 0
        self.error: KafkaException | None = None
        self._lock = threading.Lock()

    def expect(self) -> None:
        """One more record was handed to the producer."""
        with self._lock:
            self.waiting += 1

    def arrived(self, error: Any, _message: Any) -> None:
        """A record arrived, or failed for good."""
        with self._lock:
            self.waiting -= 1
            if error is not None and self.error is None:
                self.error = KafkaException(error)


class KafkaSink:
    """An idempotent producer that never gives a record up: while the brokers are away it waits.

    Bounded: at most 100,000 records or 256 MiB wait to be sent; then :meth:`send` blocks.  Safe to use from several
    threads, each with its own :class:`Delivery`.
    """

    def __init__(self, bootstrap: str, options: Mapping[str, Any] | None = None) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                # Decisions come in small groups for many partitions; fuller batches cost a reader less than they delay.
                "linger.ms": 20,
                # A dead letter is as large as what a gateway managed to send, headers and all.
                "message.max.bytes": 20 << 20,
                # No end: offsets are committed only when all has arrived, so waiting is what loses nothing.
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": _MAX_WAITING,
                "queue.buffering.max.kbytes": _MAX_WAITING_KB,
                **(options or {}),
            },
            logger=LIBRDKAFKA_LOG,
        )

    def send(
        self,
        delivery: Delivery,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Hand over one record; ``partition`` -1 lets the key choose.  Blocks while the queue is full."""
        delivery.expect()
        while True:
            try:
                self._producer.produce(
                    topic, value, key, partition, headers=list(headers), on_delivery=delivery.arrived
                )
                break
            except BufferError:
                self._producer.poll(_POLL_S)
            except KafkaException as error:
                delivery.arrived(error.args[0], None)
                break
        self._producer.poll(0)

    def wait(self, delivery: Delivery) -> None:
        """Block until all of a batch has arrived; :class:`SinkUnavailable` if one record cannot."""
        while delivery.waiting and delivery.error is None:
            self._producer.poll(_POLL_S)
        if delivery.error is not None:
            raise SinkUnavailable(f"Kafka did not take a record: {delivery.error}") from delivery.error

    def partitions(self, topic: str, timeout_s: float = 8.0) -> int:
        """How many partitions a topic has; 0 if it is not there."""
        try:
            found = self._producer.list_topics(topic, timeout=timeout_s).topics[topic]
        except KafkaException as error:
            raise SinkUnavailable(f"Kafka does not answer: {error.args[0].str()}") from error
        return 0 if found.error is not None else len(found.partitions)

    def close(self, timeout_s: float = 10.0) -> None:
        """Send what still waits."""
        self._producer.flush(timeout_s)
