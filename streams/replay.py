"""Replay: the whole pipeline in one process, as fast as it can, without broker or server.

The same intake and the same fold as the worker's.  A recording of the source topics is one stream: line order is
stream order and its source partitions share one clock, so the result depends neither on the batch size nor on the
number of shards.  A recording of `reports` is folded partition by partition, as the worker did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streams.blocks import BlockError, decode_block, shard_of_group
from streams.dead_letters import DeadLetter
from streams.dedupe import DedupeRules
from streams.intake import Intake, IntakeLimits, SourceRecord
from streams.messages import REPORTS, SOURCE_OF_TOPIC, Assignment, Incident, Outcome
from streams.pack import CityPack
from streams.recording import RecordedMessage, RecordingError
from streams.shard import Shard


@dataclass(slots=True)
class ReplayCounts:
    """The accounting of a replay: ``elements == reports + dead letters + quiet_readings + redelivered``."""

    records: int = 0
    elements: int = 0
    quiet_readings: int = 0
    redelivered: int = 0
    ignored_records: Counter[str] = field(default_factory=Counter)
    elements_by_source: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)

    def summary(self, incidents: int, seconds: float) -> dict[str, Any]:
        """What `summary.json` holds; ``seconds`` is the time the replay took."""
        reports = self.outcomes.total()
        repeats = self.outcomes[Outcome.REPEAT.value]
        events = reports - repeats - self.outcomes[Outcome.NOT_AN_EVENT.value]
        return {
            "records": self.records,
            "elements": self.elements,
            "reports": reports,
            "incidents": incidents,
            "collapsed": round((events - incidents) / events, 6) if events else 0.0,
            "dead_letters": dict(sorted(self.dead_letters.items())),
            "repeats": repeats,
            "quiet_readings": self.quiet_readings,
            "outcomes": dict(sorted(self.outcomes.items())),
            "elements_by_source": dict(sorted(self.elements_by_source.items())),
            "redelivered": self.redelivered,
            "ignored_records": dict(sorted(self.ignored_records.items())),
            "seconds": round(seconds, 3),
            "reports_per_second": round(reports / seconds) if seconds > 0 else 0,
        }


class Replay:
    """Feeds recorded messages through intake, blocks' rows and shards.

    ``shards`` changes the number of folds, never a result.  Memory grows with the incidents and with the ids of the
    last ``too_old_s``, not with the recording.
    """

    def __init__(
        self,
        pack: CityPack,
        key: bytes,
        *,
        shards: int = 1,
        limits: IntakeLimits | None = None,
        lateness_s: int = 600,
    ) -> None:
        limits = limits or IntakeLimits()
        self.pack = pack
        self.counts = ReplayCounts()
        self._rules = DedupeRules.from_pack(pack, lateness_s=lateness_s, remember_s=limits.too_old_s)
        self._intake = Intake(pack, key, limits, one_clock=True)
        self._shard_of_category = np.array(
            [shard_of_group(pack.code, category.group, shards) for category in pack.categories], np.int64
        )
        self._shards: dict[int, Shard] = {}
        self._next_offset: dict[tuple[str, int], int] = {}
        self._reads_reports: bool | None = None

    def take(self, messages: Sequence[RecordedMessage]) -> tuple[list[Assignment], list[DeadLetter]]:
        """Replay some records, in order of decision.

        Records of other topics are ignored and counted.  Raises :class:`RecordingError` when a recording holds both
        source topics and `reports`: each report would count twice.
        """
        kinds = {message.topic == REPORTS for message in messages if self._is_ours(message.topic)}
        for reads_reports in sorted(kinds):
            if self._reads_reports is None:
                self._reads_reports = reads_reports
            if self._reads_reports != reads_reports:
                raise RecordingError(
                    "the recordings hold both source topics and `reports`, which would count every report twice; "
                    "record them apart (`citybrain record --topics …`) and replay one"
                )
        for message in messages:
            if not self._is_ours(message.topic):
                self.counts.ignored_records[message.topic] += 1
        ours = [message for message in messages if self._is_ours(message.topic)]
        self.counts.records += len(ours)
        if self._reads_reports:
            return self._take_blocks(ours), []
        return self._take_sources(ours)

    def incidents(self) -> list[Incident]:
        """All incidents as they stand, sorted by id."""
        told = [incident for shard in self._shards.values() for incident in shard.incidents()]
        return sorted(told, key=lambda incident: incident.incident_id)

    @staticmethod
    def _is_ours(topic: str) -> bool:
        return topic == REPORTS or topic in SOURCE_OF_TOPIC

    def _shard(self, number: int) -> Shard:
        if number not in self._shards:
            self._shards[number] = Shard(self.pack, self._rules, one_clock=not self._reads_reports, tells=False)
        return self._shards[number]

    def _take_sources(self, messages: Sequence[RecordedMessage]) -> tuple[list[Assignment], list[DeadLetter]]:
        batch = self._intake.take([self._source_record(message) for message in messages])
        self.counts.elements += batch.elements
        self.counts.quiet_readings += batch.quiet_readings
        self.counts.elements_by_source.update(batch.elements_by_source)
        self.counts.dead_letters.update(letter.reason.value for letter in batch.dead_letters)
        decided: list[tuple[int, Assignment]] = []
        shard_of_row = self._shard_of_category[batch.reports.category]
        for number in np.unique(shard_of_row).tolist():
            rows = np.flatnonzero(shard_of_row == number)
            decisions = self._shard(number).apply(batch.reports.take(rows), self.pack.version)
            self.counts.redelivered += decisions.redelivered
            decided.extend(zip(rows[decisions.rows].tolist(), decisions.assignments, strict=True))
        decided.sort(key=lambda item: item[0])
        assignments = [assignment for _, assignment in decided]
        self.counts.outcomes.update(assignment.outcome for assignment in assignments)
        return assignments, batch.dead_letters

    def _take_blocks(self, messages: Sequence[RecordedMessage]) -> list[Assignment]:
        assignments: list[Assignment] = []
        for message in messages:
            try:
                block = decode_block(message.value, self.pack)
            except BlockError as error:
                # A fold with a block left out would be another city's day.
                raise BlockError(f"{message.topic}:{message.partition or 0}:{message.offset}: {error}") from error
            decisions = self._shard(message.partition or 0).apply_block(block)
            self.counts.elements += len(block.reports)
            self.counts.redelivered += decisions.redelivered
            assignments.extend(decisions.assignments)
        self.counts.outcomes.update(assignment.outcome for assignment in assignments)
        return assignments

    def _source_record(self, message: RecordedMessage) -> SourceRecord:
        partition = message.partition or 0
        place = (message.topic, partition)
        offset = self._next_offset.get(place, 0) if message.offset is None else message.offset
        self._next_offset[place] = offset + 1
        return SourceRecord(message.topic, partition, offset, message.timestamp_ms, message.key, message.value)
