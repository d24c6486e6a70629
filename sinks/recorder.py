"""Records Kafka topics: what stands in them when it starts, in the order of time, and then what arrives.

Kafka keeps an order only within a partition; a recording has one for all.  So the partitions that are there at the
start are merged by timestamp (a record never before an earlier one of its own partition; ties by topic, then
partition), which is deterministic; what arrives later is written as it comes.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from sinks.errors import SinkError
from streams.recording import RecordedMessage

HELD_BYTES = 4 << 20
"""A partition is read no further ahead of the merge than this, and one record more."""

_TIMEOUT_S = 20.0
_POLL_S = 0.2

# What a broker says of a topic that was made a moment ago.
_NOT_YET = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
    }
)


class RecorderError(SinkError):
    """The topics cannot be recorded: one is missing, or the broker went away."""


@dataclass(slots=True)
class Recorded:
    """What was recorded; a tombstone (a record without a value) has no place in a recording and is only counted."""

    records: int = 0
    value_bytes: int = 0
    tombstones: int = 0
    seconds: float = 0.0
    by_topic: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Place:
    """One partition on its way to where it ended when the recording began."""

    start: int
    end: int
    waiting: deque[Message] = field(default_factory=deque)
    waiting_bytes: int = 0
    newest_ms: int = -1
    read: bool = False
    paused: bool = False


class TopicRecorder:
    """Reads topics (named without prefix) from their start; a context manager.

    No consumer group is joined and nothing is committed.  Raises :class:`RecorderError` if a topic does not exist or
    the broker does not answer.
    """

    def __init__(self, bootstrap: str, prefix: str, topics: Sequence[str]) -> None:
        self.recorded = Recorded()
        self._bootstrap, self._prefix = bootstrap, prefix
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "citybrain-record",
                "group.id": "citybrain-record",  # asked for by the client, and never joined
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 16 << 10,
                "log_level": 2,
            }
        )
        try:
            self._places = self._find([prefix + topic for topic in dict.fromkeys(topics)])
        except BaseException:
            self._consumer.close()
            raise
        places = self._places.items()
        self._consumer.assign([TopicPartition(topic, number, place.start) for (topic, number), place in places])

    def run(
        self,
        write: Callable[[RecordedMessage], None],
        *,
        until_end: bool = False,
        seconds: float | None = None,
        records: int | None = None,
    ) -> Recorded:
        """Hand every record to ``write``.

        Ends when what stood there at the start has been written (``until_end``), when so many ``seconds`` have gone by
        or so many ``records`` were written, whichever comes first; without any of them, never.  ``recorded`` is kept
        up to date meanwhile.
        """
        started = time.monotonic()
        done = self.recorded
        try:
            if records != 0:
                deadline = None if seconds is None else started + seconds
                for message in self._messages(until_end=until_end, deadline=deadline):
                    write(message)
                    done.records += 1
                    done.value_bytes += len(message.value)
                    done.by_topic[message.topic] += 1
                    if done.records == records:
                        break
        finally:
            done.seconds = time.monotonic() - started
        return done

    def close(self) -> None:
        """Give up the connection."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _messages(self, *, until_end: bool, deadline: float | None) -> Iterator[RecordedMessage]:
        yield from self._merged(deadline)
        if until_end:
            return
        self._consumer.resume([TopicPartition(*key) for key in self._places])
        while deadline is None or time.monotonic() < deadline:
            message = self._poll(deadline)
            if message is not None and message.error() is None:
                yield from self._read(message)

    def _find(self, topics: Sequence[str]) -> dict[tuple[str, int], _Place]:
        """Every partition of the topics, with where it starts and ends now."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                known = self._consumer.list_topics(timeout=_TIMEOUT_S).topics
                places = {}
                for topic in topics:
                    if topic not in known:
                        raise RecorderError(
                            f"topic {topic} does not exist at {self._bootstrap}; see `citybrain topics check`, or name "
                            "another --prefix"
                        )
                    if known[topic].error is not None:
                        raise KafkaException(known[topic].error)
                    for number in sorted(known[topic].partitions):
                        found = self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT_S)
                        low, high = found or (0, 0)
                        places[topic, number] = _Place(start=low, end=high, read=low >= high)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if reason.code() not in _NOT_YET or time.monotonic() > deadline:
                    raise RecorderError(
                        f"{self._bootstrap} does not tell its topics ({reason.str()}); start it, or name another with "
                        "--brokers"
                    ) from error
                self._consumer.poll(_POLL_S)
            else:
                return places

    def _merged(self, deadline: float | None) -> Iterator[RecordedMessage]:
        """What stood there at the start, by (newest timestamp so far of its partition, topic, partition)."""
        heads: list[tuple[int, str, int]] = []
        missing = {key for key, place in self._places.items() if not place.read}
        self._consumer.pause([TopicPartition(*key) for key in self._places if key not in missing])
        while missing or heads:
            while missing:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                message = self._poll(deadline)
                if message is not None:
                    self._sort_in(message)
                for key in sorted(missing):
                    place = self._places[key]
                    if place.waiting:
                        heapq.heappush(heads, (self._time_of_head(place), *key))
                    if place.waiting or place.read:
                        missing.discard(key)
            if heads:
                _, topic, number = heapq.heappop(heads)
                place = self._places[topic, number]
                head = place.waiting.popleft()
                place.waiting_bytes -= len(head)
                yield from self._read(head)
                if place.paused and not place.read and place.waiting_bytes < HELD_BYTES // 2:
                    self._consumer.resume([TopicPartition(topic, number)])
                    place.paused = False
                if place.waiting:
                    heapq.heappush(heads, (self._time_of_head(place), topic, number))
                elif not place.read:
                    missing.add((topic, number))

    def _sort_in(self, message: Message) -> None:
        """Put one polled message where it belongs, and stop reading where the end or the bound is reached."""
        topic, number, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        place = self._places[topic, number]
        if message.error() is not None or offset >= place.end:
            # The end as the broker says it, or what arrived since: compaction and transactions leave gaps before it.
            place.read = place.read or offset >= place.end
        else:
            place.waiting.append(message)
            place.waiting_bytes += len(message)
            place.read = offset + 1 >= place.end
        if place.read or (place.waiting_bytes > HELD_BYTES and not place.paused):
            self._consumer.pause([TopicPartition(topic, number)])
            place.paused = True
        if place.read and message.error() is None and offset >= place.end:
            self._consumer.seek(TopicPartition(topic, number, offset))

    @staticmethod
    def _time_of_head(place: _Place) -> int:
        place.newest_ms = max(place.newest_ms, place.waiting[0].timestamp()[1])
        return place.newest_ms

    def _poll(self, deadline: float | None) -> Message | None:
        left = _POLL_S if deadline is None else max(0.0, min(_POLL_S, deadline - time.monotonic()))
        message = self._consumer.poll(left)
        if message is not None and (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                return message
            if not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
                raise RecorderError(f"{self._bootstrap} does not give its records ({error.str()})")
            return None
        return message

    def _read(self, message: Message) -> Iterator[RecordedMessage]:
        value, key = message.value(), message.key()
        if value is None:
            self.recorded.tombstones += 1
            return
        kind, timestamp_ms = message.timestamp()
        headers: list[tuple[str, str | bytes | None]] = list(message.headers() or [])  # type: ignore[arg-type]  # a list
        yield RecordedMessage(
            topic=(message.topic() or "").removeprefix(self._prefix),
            value=_bytes(value),
            partition=message.partition(),
            offset=message.offset(),
            timestamp_ms=timestamp_ms if kind else None,
            key=None if key is None else _bytes(key),
            headers=[(str(name), _bytes(data or b"")) for name, data in headers],
        )


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
