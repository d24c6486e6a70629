"""Plays a recording into Kafka: at a multiple of its own pace, timestamps kept, nothing lost without a word.

The timestamp of a record is its ingestion time.  A line without one gets what replay takes for it: the
newest readable ``time`` of its value, else the newest timestamp sent before it.  Kafka 4 refuses a timestamp more than
an hour ahead of its own clock, so a time that is ahead of now is not taken from a value; one that the recording states
is sent as it is, and the refusal is reported.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from sinks.errors import SinkError
from sinks.topics import SOURCE_MAX_BYTES
from streams.messages import FEEDBACK, TOPIC_OF_SOURCE
from streams.platform_records import RecordTimes, platform_of
from streams.recording import RecordedMessage

QUEUE_MESSAGES = 50_000
QUEUE_KBYTES = 64 << 10
"""The producer's bound; when it is full, the recording is not read on until the broker has taken some."""

DELIVERY_TIMEOUT_S = 60.0
"""A record that the broker has not taken for so long has failed."""

PACED_BYTES = 128 << 10
PACED_RECORDS = 500
"""With a ``pause``, at most so much is sent between two questions."""

ALONE_BYTES = 900_000
"""A larger record is sent in a batch of its own: a broker that refuses one record refuses the whole batch with it."""

ALONE_AHEAD_MS = 50 * 60_000
"""So is one whose timestamp is further ahead of now; Kafka 4 refuses those more than an hour ahead."""

PAUSE_POLL_S = 0.05
FAILURES_TOLD = 5

_WITH_TIMES = frozenset({*TOPIC_OF_SOURCE.values(), FEEDBACK})
Platforms = Mapping[tuple[str, str], RecordTimes]
"""Where platforms say their times, as `streams.platform_records.record_times` finds it in a city's pack."""


class PlaybackError(SinkError):
    """The recording cannot be played: a topic is missing, or the broker went away."""


@dataclass(slots=True)
class Played:
    """What came of a playback; ``failures`` counts refusals by reason, ``examples`` names the first few."""

    records: int = 0
    delivered: int = 0
    value_bytes: int = 0
    seconds: float = 0.0
    by_topic: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


def produce_recording(
    messages: Iterable[RecordedMessage],
    bootstrap: str,
    prefix: str,
    *,
    speed: float | None = None,
    pause: Callable[[], bool] | None = None,
    delivered: Callable[[str, int, int, int], None] | None = None,
    sent: Callable[[int], None] | None = None,
) -> Played:
    """Send every message to ``prefix + topic`` and wait until the broker has answered for each.

    Parameters
    ----------
    messages : iterable of RecordedMessage
        In stream order, as :func:`~streams.recording.read_recording` gives them (without its bad lines).
    bootstrap, prefix : str
        The broker's addresses; what goes before each topic's name.
    speed : float, optional
        How many seconds of the recording go by in one; None is as fast as the broker takes it.
    pause : callable, optional
        Asked before every 128 KiB or 500 records, when all before have been delivered.  While it answers True nothing
        is sent; asked again every 50 ms.  :class:`LagLimit` is one.
    delivered : callable(topic, partition, offset, value_bytes), optional
        Called for each record that the broker has taken; topic with prefix.
    sent : callable(count), optional
        Called for each record handed over, with 1: for a progress bar.

    A record with a partition keeps it where the topic has it; any other goes by the murmur2 hash of its key, as
    Java's clients do; those without a key share one partition, so that they keep their order.

    Raises
    ------
    PlaybackError
        A topic does not exist, or the broker does not answer.  A record that alone is refused raises nothing: it is
        counted in ``Played.failures``.
    """
    playing = _Playing(bootstrap, prefix, delivered)
    started = time.monotonic()
    pace = _Pace(speed, started) if speed is not None else None
    unasked_records = unasked_bytes = 0
    for message in messages:
        if pace is not None and message.timestamp_ms is not None:
            playing.serve_until(pace.due(message.timestamp_ms))
        if pause is not None and (unasked_records >= PACED_RECORDS or unasked_bytes >= PACED_BYTES):
            playing.flush()
            while pause():
                playing.serve_until(time.monotonic() + PAUSE_POLL_S)
            unasked_records = unasked_bytes = 0
        alone = len(message.value) > ALONE_BYTES or (
            message.timestamp_ms is not None and message.timestamp_ms > time.time() * 1000 + ALONE_AHEAD_MS
        )
        if alone:
            playing.flush()
        playing.send(message)
        if alone:
            playing.flush()
        unasked_records += 1
        unasked_bytes += len(message.value)
        if sent is not None:
            sent(1)
    playing.flush()
    playing.played.seconds = time.monotonic() - started
    return playing.played


class _Pace:
    """When, on the monotonic clock, a record with a given timestamp is due."""

    def __init__(self, speed: float, started: float) -> None:
        if not speed > 0:
            raise ValueError(f"speed is {speed}; it must be more than 0")
        self._speed, self._started = speed, started
        self._first_ms: int | None = None

    def due(self, timestamp_ms: int) -> float:
        if self._first_ms is None:
            self._first_ms = timestamp_ms
        return self._started + (timestamp_ms - self._first_ms) / 1000 / self._speed


class _Playing:
    def __init__(self, bootstrap: str, prefix: str, delivered: Callable[[str, int, int, int], None] | None) -> None:
        self.played = Played()
        self._bootstrap, self._prefix, self._delivered = bootstrap, prefix, delivered
        self._partitions: dict[str, int] = {}
        self._broken: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "citybrain-produce",
                "error_cb": self._on_error,
                "log_level": 2,
                "acks": "all",
                # Keeps the order of a partition over a retry, and doubles nothing.
                "enable.idempotence": True,
                "partitioner": "murmur2",
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.max.bytes": SOURCE_MAX_BYTES,
                "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
                "queue.buffering.max.messages": QUEUE_MESSAGES,
                "queue.buffering.max.kbytes": QUEUE_KBYTES,
            }
        )

    def send(self, message: RecordedMessage) -> None:
        topic = self._prefix + message.topic
        if topic not in self._partitions:
            self._partitions[topic] = self._partitions_of(topic)
        where: dict[str, Any] = {}
        if message.partition is not None and 0 <= message.partition < self._partitions[topic]:
            where["partition"] = message.partition
        if message.timestamp_ms is not None:
            # confluent-kafka takes 0 for "now".
            where["timestamp"] = max(1, message.timestamp_ms)
        self.played.records += 1
        self.played.by_topic[message.topic] += 1
        self.played.value_bytes += len(message.value)
        number, size = self.played.records, len(message.value)

        def answered(error: KafkaError | None, answer: Message) -> None:
            if error is not None:
                self._failed(number, topic, error)
                return
            self.played.delivered += 1
            if self._delivered is not None:
                self._delivered(topic, answer.partition() or 0, answer.offset() or 0, size)

        while True:
            try:
                self._producer.produce(
                    topic,
                    message.value,
                    key=message.key,
                    headers=list(message.headers),
                    on_delivery=answered,
                    **where,
                )
            except BufferError:
                self.serve_until(time.monotonic() + 0.1)
            except KafkaException as error:
                self._failed(number, topic, error.args[0])
                break
            else:
                break
        self._producer.poll(0)
        self._raise_if_broken()

    def serve_until(self, due: float) -> None:
        """Take the broker's answers until ``due`` on the monotonic clock, in waits short enough for Ctrl-C."""
        while (left := due - time.monotonic()) > 0:
            self._producer.poll(min(left, 0.5))
            self._raise_if_broken()

    def flush(self) -> None:
        """Wait until the broker has answered for every record handed over."""
        while self._producer.flush(0.5):
            self._raise_if_broken()
        self._raise_if_broken()

    def _partitions_of(self, topic: str) -> int:
        deadline = time.monotonic() + 10
        while True:
            try:
                found = self._producer.list_topics(topic, timeout=5).topics[topic]
            except KafkaException as error:
                raise PlaybackError(
                    f"no Kafka answers at {self._bootstrap} ({error.args[0].str()}); start it, or name another "
                    "with --brokers"
                ) from error
            if found.error is None and found.partitions:
                return len(found.partitions)
            # A broker that makes topics by itself says for a moment that the new one has no leader yet.
            unknown = found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            if unknown or time.monotonic() > deadline:
                raise PlaybackError(
                    f"topic {topic} does not exist at {self._bootstrap}; make it with `citybrain topics create`, "
                    "or name another --prefix"
                )
            self.serve_until(time.monotonic() + 0.1)

    def _failed(self, number: int, topic: str, error: KafkaError) -> None:
        self.played.failures[error.name()] += 1
        if len(self.played.examples) < FAILURES_TOLD:
            self.played.examples.append(f"record {number} into {topic}: {error.str()}")
        if error.code() in (KafkaError._MSG_TIMED_OUT, KafkaError._FATAL):
            self._broken = error

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken = error

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            played = self.played
            raise PlaybackError(
                f"{self._bootstrap} stopped taking records after {played.delivered} of {played.records} "
                f"({self._broken.str()}); see to the broker and start again"
            )


# ------------------------------------------------------------------------------------------------ pacing by lag


class LagLimit:
    """A ``pause`` for :func:`produce_recording`: True while a consumer group is too far behind what was sent.

    It counts what it was told by ``delivered`` (pass the method of that name too) against the offsets that the group
    has committed, per partition: records and bytes of values not yet committed.  Needed before the embedded broker,
    which drops what it cannot hold (5 MB a partition).

    Parameters
    ----------
    max_records, max_bytes : int, optional
        The most that one partition may be behind; at least one of them.  Between two questions up to 128 KiB or 500
        records more may be sent.
    """

    def __init__(
        self, bootstrap: str, group: str, *, max_records: int | None = None, max_bytes: int | None = None
    ) -> None:
        if max_records is None and max_bytes is None:
            raise ValueError("a lag limit needs max_records or max_bytes")
        self._max_records, self._max_bytes = max_records, max_bytes
        self._waiting: dict[tuple[str, int], deque[tuple[int, int]]] = {}
        self._waiting_bytes: Counter[tuple[str, int]] = Counter()
        # Never joins the group: it only asks what the group has committed.
        self._asker = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 2})

    def delivered(self, topic: str, partition: int, offset: int, value_bytes: int) -> None:
        """Note a record that the broker has taken."""
        self._waiting.setdefault((topic, partition), deque()).append((offset, value_bytes))
        self._waiting_bytes[topic, partition] += value_bytes

    def __call__(self) -> bool:
        """Ask for the committed offsets; True while any partition is beyond a limit."""
        if not self._is_behind():
            return False
        asked = [TopicPartition(topic, partition) for topic, partition in self._waiting]
        try:
            committed = self._asker.committed(asked, timeout=10)
        except KafkaException:
            # The coordinator may be busy or away: unknown is behind; a broker that stays away ends the producer.
            return True
        for place in committed:
            key = (place.topic, place.partition)
            waiting = self._waiting[key]
            while waiting and waiting[0][0] < place.offset:
                self._waiting_bytes[key] -= waiting.popleft()[1]
        return self._is_behind()

    def close(self) -> None:
        """Give up the connection."""
        self._asker.close()

    def _is_behind(self) -> bool:
        return any(
            (self._max_records is not None and len(waiting) > self._max_records)
            or (self._max_bytes is not None and self._waiting_bytes[key] > self._max_bytes)
            for key, waiting in self._waiting.items()
        )


# ------------------------------------------------------------------------------------------------------- times


def with_timestamps(
    messages: Iterable[RecordedMessage], now_ms: int, platforms: Platforms | None = None
) -> Iterator[RecordedMessage]:
    """The messages, each with a timestamp: its own, else the newest time in its value, else the newest before it.

    A value's time ahead of ``now_ms`` is not taken, since Kafka would refuse it.  Where nothing before it has a
    timestamp either, a message gets 0, as in a replay (and is sent with 1, since 0 means "now" to the client).
    """
    newest_ms = 0
    for message in messages:
        timed = message
        if message.timestamp_ms is None:
            value_ms = _newest_ms(message, platforms)
            timestamp_ms = newest_ms if value_ms is None or value_ms > now_ms else value_ms
            timed = replace(message, timestamp_ms=timestamp_ms)
        assert timed.timestamp_ms is not None
        newest_ms = max(newest_ms, timed.timestamp_ms)
        yield timed


class _Times(Protocol):
    """Finds and moves the times in records' values."""

    def newest_ms(self, value: bytes) -> int | None: ...
    def moved(self, value: bytes, shift_ms: int) -> bytes: ...


class _OwnTimes:
    """Those of messages that name their fields as we do."""

    def newest_ms(self, value: bytes) -> int | None:
        return newest_time_ms(value)

    def moved(self, value: bytes, shift_ms: int) -> bytes:
        return _shifted(value, shift_ms)


class _NoTimes:
    """Those of the service's own topics, which stay as they are."""

    def newest_ms(self, value: bytes) -> int | None:
        return None

    def moved(self, value: bytes, shift_ms: int) -> bytes:
        return value


def _times_of(message: RecordedMessage, platforms: Platforms | None) -> _Times | None:
    """How a record says its times, as the intake reads it; None where only the city's pack could tell."""
    named = platform_of(message)
    if named is not None and (platforms is None or named in platforms or message.topic not in _WITH_TIMES):
        return None if platforms is None else platforms.get(named)
    return _OwnTimes() if message.topic in _WITH_TIMES else _NoTimes()


def _newest_ms(message: RecordedMessage, platforms: Platforms | None) -> int | None:
    times = _times_of(message, platforms)
    return None if times is None else times.newest_ms(message.value)


def newest_time_ms(value: bytes) -> int | None:
    """The newest readable ``time`` in a JSON object or array of objects, Unix ms; None if there is none."""
    try:
        decoded = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    elements = decoded if isinstance(decoded, list) else [decoded]
    times = [_time_ms(element.get("time")) for element in elements if isinstance(element, dict)]
    return max((each for each in times if each is not None), default=None)


def shift_to(
    messages: Iterable[RecordedMessage], shift_ms: int, platforms: Platforms | None = None
) -> Iterator[RecordedMessage]:
    """The messages moved in time: timestamps, and each readable `time` in the values of sources and feedback.

    Values whose time cannot be read, and those of other topics, are left as they are, byte for byte.  A record of a
    platform raises ``PlaybackError`` if ``platforms`` are not given or do not tell of its topic.
    """
    for message in messages:
        times = _times_of(message, platforms)
        if times is None:
            raise PlaybackError(
                f"a record of a platform ({' '.join(platform_of(message) or ())}): only a city pack tells where it "
                "says its times; name one that has the platform with --city"
            )
        stamp = None if message.timestamp_ms is None else message.timestamp_ms + shift_ms
        yield replace(message, value=times.moved(message.value, shift_ms), timestamp_ms=stamp)


def shift_to_now_ms(messages: Iterable[RecordedMessage], now_ms: int, platforms: Platforms | None = None) -> int:
    """By how much to move a recording so that its newest record is of now; reads all of it.  0 for no record.

    Times ahead of now are not heeded, unless all are: one broken clock must not move a whole day by a century.
    """
    newest_past_ms = newest_ms = None
    for message in messages:
        at_ms = _newest_ms(message, platforms) if message.timestamp_ms is None else message.timestamp_ms
        if at_ms is None:
            continue
        newest_ms = at_ms if newest_ms is None else max(newest_ms, at_ms)
        if at_ms <= now_ms:
            newest_past_ms = at_ms if newest_past_ms is None else max(newest_past_ms, at_ms)
    newest = newest_ms if newest_past_ms is None else newest_past_ms
    return 0 if newest is None else now_ms - newest


def _time_ms(written: object) -> int | None:
    if isinstance(written, int) and not isinstance(written, bool):
        return written if abs(written) < 1 << 53 else None
    if isinstance(written, str):
        try:
            read = datetime.fromisoformat(written)
        except ValueError:
            return None
        if read.tzinfo is not None:
            return int(read.timestamp() * 1000)
    return None


def _shifted(value: bytes, shift_ms: int) -> bytes:
    try:
        decoded = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    changed = False
    for element in decoded if isinstance(decoded, list) else [decoded]:
        if not isinstance(element, dict):
            continue
        written = element.get("time")
        time_ms = _time_ms(written)
        if time_ms is None:
            continue
        if isinstance(written, str):
            try:
                moved = datetime.fromisoformat(written) + timedelta(milliseconds=shift_ms)
            except OverflowError:
                continue
            element["time"] = moved.isoformat(timespec="milliseconds")
        else:
            element["time"] = time_ms + shift_ms
        changed = True
    return orjson.dumps(decoded) if changed else value
