"""The three stages of a worker: each takes the records of one fetched batch of one partition.

Nothing here knows of Faust or of asyncio.  Intake and dedupe answer with the delivery of what came of the batch, and
when that has arrived the batch may be acknowledged; ClickHouse's batches may be when their rows are flushed.  Called
again with the same batch a stage does no harm.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaException, TopicPartition

from agents.metrics import Metrics
from sinks.clickhouse import ClickHouseSink
from sinks.kafka import LIBRDKAFKA_LOG, Delivery, KafkaSink
from streams.blocks import BlockError, Mark, decode_block, encode_blocks, encode_tick
from streams.datum_guard import Finding
from streams.dead_letters import DeadLetter
from streams.intake import Intake, IntakeLimits, IntakePack, SourceRecord
from streams.messages import (
    ASSIGNMENTS,
    DEAD_LETTERS,
    INCIDENTS,
    MAX_TIME_MS,
    REPORTS,
    SOURCES,
    SUSPECTED_INCIDENTS,
    Assignment,
    DeadLetterRecord,
    Incident,
    Reason,
    Status,
    platform_named,
)
from streams.privacy import mask_text
from streams.routing import Router
from streams.shard import Decisions, Shard
from streams.terms import Terms

log = logging.getLogger("citybrain.stages")


class Record(Protocol):
    """What the stages need of a Kafka record, as aiokafka gives it."""

    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class IntakeStage:
    """Source topics and feedback to `reports`: decode, locate, and send each to its category group's shard."""

    def __init__(
        self,
        pack: IntakePack,
        key: bytes,
        limits: IntakeLimits,
        kafka: KafkaSink,
        prefix: str,
        shards: int,
        metrics: Metrics,
    ) -> None:
        self._intake = Intake(pack, key, limits)
        self._router = Router(self._intake.terms, shards)
        self._kafka = kafka
        self._prefix = prefix
        self._shards = shards
        self._metrics = metrics
        self._told_datums: dict[tuple[str, str, str], Finding] = {}
        metrics.pack_info.labels(self.pack_version).set(1)

    @property
    def topics(self) -> list[str]:
        """Every topic it can take, without prefix."""
        return self._intake.topics

    @property
    def pack_version(self) -> str:
        """Version of the pack in use."""
        return self._intake.pack.version

    def use(self, made: IntakePack) -> None:
        """Locate from the next batch on by another version of the pack."""
        self._metrics.pack_info.remove(self.pack_version)
        self._intake.use(made)
        self._router = Router(self._intake.terms, self._shards)
        self._metrics.pack_info.labels(self.pack_version).set(1)
        self._tell_datums()

    def forget(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Source partitions, by topic without prefix, that another worker may have had in the meantime."""
        for topic, partition in partitions:
            self._intake.forget(topic, partition)

    def take(self, topic: str, partition: int, records: Sequence[Record]) -> Delivery:
        """One batch of a source partition; ``topic`` is without prefix.  What comes of it is on its way."""
        with self._metrics.timed("intake", len(records)):
            batch = self._intake.take([_source_record(topic, partition, record) for record in records])
            delivery = Delivery()
            terms = self._intake.terms
            for shard, (rows, _, feedback) in self._router.split(batch.reports, batch.feedback).items():
                for block in encode_blocks(terms, batch.reports.take(rows), feedback, (shard, self._shards)):
                    self._kafka.send(delivery, self._prefix + REPORTS, block, partition=shard)
            send_dead_letters(batch.dead_letters, self._kafka, delivery, self._prefix, self._metrics)
        metrics = self._metrics
        for source, count in batch.elements_by_source.items():
            metrics.messages.labels(source).inc(count)
        for number, count in enumerate(np.bincount(batch.reports.source, minlength=len(SOURCES)).tolist()):
            metrics.reports.labels(SOURCES[number]).inc(count)
        metrics.quiet.inc(batch.quiet_readings)
        metrics.places.labels("placed").inc(batch.placed_by_name)
        metrics.places.labels("unplaced").inc(batch.unplaced)
        # Of a reading may come nothing, and then nothing is written that could be as new as it.
        sure_ms = np.delete(batch.reports.ingested_ms, batch.reports.reading_rows())
        if len(sure_ms):
            metrics.saw_ingestion("read", int(sure_ms.max()))
        self._tell_datums()
        return delivery

    def _tell_datums(self) -> None:
        """Say once who is found to send another datum than declared, or no longer is."""
        found = {(one.source, one.platform, one.declared): one for one in self._intake.datum_findings}
        if found == self._told_datums:
            return
        self._metrics.saw_datums(found.values())
        for sender, one in found.items():
            before = self._told_datums.get(sender)
            if before is None or (before.really, before.or_else) != (one.really, one.or_else):
                fields = {**_datum_fields(one), "event": "datum_suspected"}
                log.warning("%s", one, extra=fields)
        for sender, one in self._told_datums.items():
            if sender not in found:
                fields = {**_datum_fields(one), "event": "datum_cleared"}
                log.info("%s: nothing speaks against %s any more", one.sender, one.declared, extra=fields)
        self._told_datums = found

    def newest_ms(self, topic: str, partition: int) -> int:
        """Newest ingestion time read from a source partition; 0 if nothing was."""
        return self._intake.marks.get((topic, partition), 0)

    def tick(self, marks: Sequence[Mark]) -> None:
        """Tell every shard how far source partitions were read."""
        delivery = Delivery()
        tick = encode_tick(self._intake.terms, marks)
        for shard in range(self._shards):
            self._kafka.send(delivery, self._prefix + REPORTS, tick, partition=shard)
        self._kafka.wait(delivery)


def _datum_fields(finding: Finding) -> dict[str, object]:
    return {
        "source": finding.source,
        "platform": mask_text(finding.platform) or None,
        "declared_crs": finding.declared,
        "likely_crs": finding.really or None,
        "offset_m": finding.offset_m,
    }


def _source_record(topic: str, partition: int, record: Record) -> SourceRecord:
    # -1 stands for none; a client may set any 64 bits, and what no calendar holds is none as well.
    given = record.timestamp
    timestamp = given if given is not None and 0 <= given <= MAX_TIME_MS else None
    platform = platform_named(record.headers)
    return SourceRecord(topic, partition, record.offset, timestamp, record.key, record.value or b"", platform)


def send_dead_letters(
    letters: Sequence[DeadLetter], kafka: KafkaSink, delivery: Delivery, prefix: str, metrics: Metrics
) -> None:
    """Each unchanged, with the headers that say why."""
    for letter in letters:
        kafka.send(delivery, prefix + DEAD_LETTERS, letter.value, key=letter.key, headers=letter.headers())
        metrics.dead_letters.labels(letter.source, letter.reason.value).inc()


class DedupeStage:
    """`reports` to incidents and assignments: one fold for each shard this worker owns, whatever its pack is.

    ``read_log(partition, start, end)`` gives the records of a partition of `reports` from offset ``start`` (or the
    oldest there is) up to, not including, ``end``.  A fold that has not seen all before a batch folds that silently
    first: so it is after a restart or a rebalance.
    """

    def __init__(
        self,
        city: str,
        kafka: KafkaSink,
        prefix: str,
        metrics: Metrics,
        read_log: Callable[[int, int, int], Any],
        *,
        lateness_s: int,
        remember_s: int,
    ) -> None:
        self._terms = Terms(city)
        self._lateness_s = lateness_s
        self._remember_s = remember_s
        self._kafka = kafka
        self._prefix = prefix
        self._metrics = metrics
        self._read_log = read_log
        self._shards: dict[int, Shard] = {}
        self._next_offset: dict[int, int] = {}
        self._lock = threading.Lock()

    def take(self, partition: int, records: Sequence[Record]) -> Delivery:
        """One batch of a shard's partition.  What was decided is on its way."""
        with self._lock, self._metrics.timed("dedupe", len(records)):
            try:
                delivery = self._take(partition, records)
            except BaseException:
                # What was folded may not have been told; folding again from the log tells it.
                self._drop(partition)
                raise
            self._count_incidents()
            return delivery

    def _count_incidents(self) -> None:
        by_status = Counter[str]()
        for shard in self._shards.values():
            by_status.update(shard.by_status())
        for status in Status:
            self._metrics.incidents.labels(status.value).set(by_status[status.value])

    def _take(self, partition: int, records: Sequence[Record]) -> Delivery:
        shard = self._caught_up(partition, records[0].offset)
        delivery = Delivery()
        for record in records:
            decisions = self._fold(shard, partition, record, delivery)
            if decisions is not None:
                self._send(decisions, delivery)
            self._next_offset[partition] = record.offset + 1
        watermark_ms = shard.dedupe.watermark_ms
        if watermark_ms is not None and watermark_ms > 0:
            self._metrics.watermark.labels(str(partition)).set(watermark_ms / 1000)
        return delivery

    def forget(self, partitions: Sequence[int]) -> None:
        """Shards that went to another worker."""
        with self._lock:
            for partition in partitions:
                self._drop(partition)
                self._metrics.watermark.remove(str(partition))
            self._count_incidents()

    def _drop(self, partition: int) -> None:
        self._shards.pop(partition, None)
        self._next_offset.pop(partition, None)

    def _caught_up(self, partition: int, offset: int) -> Shard:
        """The partition's fold with everything before ``offset`` in it."""
        if self._next_offset.get(partition, 0) > offset:
            self._drop(partition)  # delivered again: what follows must be told again
        if partition not in self._shards:
            self._shards[partition] = Shard(self._terms, lateness_s=self._lateness_s, remember_s=self._remember_s)
            self._next_offset[partition] = 0
        shard = self._shards[partition]
        if self._next_offset[partition] < offset:
            for record in self._read_log(partition, self._next_offset[partition], offset):
                self._fold(shard, partition, record, None)
            self._next_offset[partition] = offset
        return shard

    def _fold(self, shard: Shard, partition: int, record: Record, delivery: Delivery | None) -> Decisions | None:
        """Fold one record; without a ``delivery`` silently."""
        value = record.value or b""
        try:
            block = decode_block(value, self._terms)
        except BlockError as error:
            # Only we write this topic, but whatever stands in it must not stop the city.
            if delivery is not None:
                letter = DeadLetter(
                    REPORTS, partition, record.offset, 0, record.key, value, Reason.MALFORMED_JSON, None, str(error),
                    record.timestamp or 0,
                )  # fmt: skip
                send_dead_letters([letter], self._kafka, delivery, self._prefix, self._metrics)
            return None
        decisions = shard.apply_block(block, silent=delivery is None)
        if delivery is None:
            return None
        self._metrics.redelivered.inc(decisions.redelivered)
        self._metrics.quiet.inc(decisions.quiet_readings)
        for action, count in decisions.feedback.items():
            self._metrics.feedback.labels(action, "applied").inc(count)
        for action, count in decisions.feedback_repeats.items():
            self._metrics.feedback.labels(action, "repeated").inc(count)
        for letter, action in zip(decisions.dead_letters, decisions.refused_actions, strict=True):
            self._metrics.feedback.labels(action, letter.reason.value).inc()
        return decisions

    def _send(self, decisions: Decisions, delivery: Delivery) -> None:
        send_dead_letters(decisions.dead_letters, self._kafka, delivery, self._prefix, self._metrics)
        for incident in decisions.incidents:
            topic = SUSPECTED_INCIDENTS if incident.status == Status.SUSPECTED else INCIDENTS
            self._kafka.send(delivery, self._prefix + topic, _json.encode(incident), key=incident.incident_id.encode())
        last = len(decisions.assignments) - 1
        for number, assignment in enumerate(decisions.assignments):
            # For the freshness figure; the topic's timestamps are the broker's business and its retention's.
            headers = [(INGESTED_HEADER, str(decisions.newest_ingested_ms).encode())] if number == last else []
            key = assignment.incident_id.encode() if assignment.incident_id else None
            self._kafka.send(delivery, self._prefix + ASSIGNMENTS, _json.encode(assignment), key=key, headers=headers)
            if not assignment.revision:
                self._metrics.outcomes.labels(assignment.source, assignment.outcome).inc()
        self._metrics.corrections.inc(decisions.corrections)


INGESTED_HEADER = "newest_ingested_ms"
_json = msgspec.json.Encoder(order="deterministic")


class ClickHouseStage:
    """`incidents`, suspected or not, `assignments` and `dead-letters` to ClickHouse."""

    def __init__(self, sink: ClickHouseSink, metrics: Metrics) -> None:
        self.sink = sink
        self._metrics = metrics
        self._newest_ms = 0
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {
            INCIDENTS: msgspec.json.Decoder(Incident),
            SUSPECTED_INCIDENTS: msgspec.json.Decoder(Incident),
            ASSIGNMENTS: msgspec.json.Decoder(Assignment),
        }

    def add(self, topic: str, records: Sequence[Record]) -> None:
        """Buffer one batch; ``topic`` is without prefix."""
        if topic == DEAD_LETTERS:
            self.sink.add_dead_letters(self._dead_letters(records))
            return
        rows = self._decode(topic, records)
        if topic in (INCIDENTS, SUSPECTED_INCIDENTS):
            self.sink.add_incidents(rows)
            return
        self.sink.add_assignments(rows)
        for record in records:
            for name, data in record.headers:
                if name == INGESTED_HEADER:
                    self._newest_ms = max(self._newest_ms, int(data))

    def flush(self) -> None:
        """Insert what is buffered; :class:`sinks.errors.SinkError` if ClickHouse does not take it."""
        newest_ms = self._newest_ms
        with self._metrics.timed("clickhouse", self.sink.rows):
            written = self.sink.flush()
        for table, rows in written.items():
            self._metrics.rows_written.labels(table).inc(rows)
        if newest_ms:
            self._metrics.saw_ingestion("written", newest_ms)

    def _decode(self, topic: str, records: Sequence[Record]) -> list[Any]:
        decoder = self._decoders[topic]
        rows = []
        for record in records:
            if not record.value:
                continue  # a tombstone: somebody compacted an incident away on purpose
            try:
                rows.append(decoder.decode(record.value))
            except msgspec.MsgspecError as error:
                self._unreadable(topic, record, error)
        return rows

    def _dead_letters(self, records: Sequence[Record]) -> list[DeadLetterRecord]:
        rows = []
        for record in records:
            try:
                letter = DeadLetter.from_headers(list(record.headers), record.key, record.value or b"")
            except ValueError as error:
                self._unreadable(DEAD_LETTERS, record, error)
                continue
            rows.append(letter.record())
        return rows

    def _unreadable(self, topic: str, record: Record, error: Exception) -> None:
        # Only we write these topics; the record stays where it is, and whoever wrote it must not stop the others.
        self._metrics.unreadable.labels(topic).inc()
        # Not what the error says: that may quote the record, and whose words those are nobody knows.
        fields = {
            "event": "unreadable",
            "topic": topic,
            "partition": record.partition,
            "offset": record.offset,
            "error": type(error).__name__,
        }
        log.error("%s: a record is not one of ours and is passed over", topic, extra=fields)


class LogReader:
    """Reads ranges of the `reports` partitions outside the consumer group, for catching up."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic

    def read(self, partition: int, start: int, end: int) -> Any:
        """The records from ``start``, or the oldest there is, up to, not including, ``end``.

        Raises :class:`KafkaException` if the log cannot be read to there.
        """
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "citybrain-catch-up",  # required by the client; nothing is committed under it
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.message.max.bytes": 16 << 20,
                "queued.max.messages.kbytes": 64 << 10,
            },
            logger=LIBRDKAFKA_LOG,
        )
        try:
            oldest, _ = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=30)
            if max(start, oldest) >= end:
                return
            consumer.assign([TopicPartition(self._topic, partition, max(start, oldest))])
            while True:
                for message in consumer.consume(500, timeout=1.0):
                    error = message.error()
                    if error is not None:
                        # The end of the log before `end` included: a fold that lacks the last records decides wrongly.
                        raise KafkaException(error)
                    offset = message.offset()
                    assert offset is not None, "a fetched record has an offset"
                    if offset < end:
                        yield LogRecord(partition, offset, message.timestamp()[1], message.key(), message.value(), ())
                    if offset + 1 >= end:
                        return
        finally:
            consumer.close()


class LogRecord(msgspec.Struct):
    """A record read outside the group, as a :class:`Record`."""

    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
