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

from streams.blocks import BlockError, decode_block
from streams.datum_guard import Finding
from streams.dead_letters import DeadLetter
from streams.intake import Intake, IntakeLimits, IntakePack
from streams.messages import REPORTS, Assignment, Incident, Outcome
from streams.pack import CityPack
from streams.recording import RecordedMessage, RecordingError
from streams.routing import Router, owner
from streams.shard import Decisions, Shard
from streams.source_records import SourceRecords
from streams.terms import Terms


@dataclass(slots=True)
class ReplayCounts:
    """The accounting of a replay.

    ``elements == reports + feedback + feedback_repeats + dead letters + quiet_readings + redelivered``.
    """

    records: int = 0
    elements: int = 0
    quiet_readings: int = 0
    redelivered: int = 0
    ignored_records: Counter[str] = field(default_factory=Counter)
    elements_by_source: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of first answers."""
    corrections: int = 0
    feedback: Counter[str] = field(default_factory=Counter)
    feedback_repeats: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)

    def summary(self, incidents: int, seconds: float) -> dict[str, Any]:
        """What `summary.json` holds; ``seconds`` is the time the replay took."""
        reports = self.outcomes.total()
        repeats = self.outcomes[Outcome.REPEAT.value]
        events = reports - repeats - self.outcomes[Outcome.AMENDED.value] - self.outcomes[Outcome.NOT_AN_EVENT.value]
        return {
            "records": self.records,
            "elements": self.elements,
            "reports": reports,
            "incidents": incidents,
            "collapsed": round((events - incidents) / events, 6) if events else 0.0,
            "dead_letters": dict(sorted(self.dead_letters.items())),
            "repeats": repeats,
            "corrections": self.corrections,
            "quiet_readings": self.quiet_readings,
            "outcomes": dict(sorted(self.outcomes.items())),
            "feedback": dict(sorted(self.feedback.items())),
            "feedback_repeats": self.feedback_repeats,
            "elements_by_source": dict(sorted(self.elements_by_source.items())),
            "redelivered": self.redelivered,
            "ignored_records": dict(sorted(self.ignored_records.items())),
            "seconds": round(seconds, 3),
            "reports_per_second": round(reports / seconds) if seconds > 0 else 0,
        }


class Replay:
    """Feeds recorded messages through intake, blocks' rows and shards.

    ``shards`` changes the number of folds, never a result.  With ``tells`` each `take` leaves in :attr:`told` the
    incidents that it changed, as consumers would be told of them.  Memory grows with the incidents and with the ids of
    the last ``too_old_s``, not with the recording.
    """

    def __init__(
        self,
        pack: CityPack | IntakePack,
        key: bytes,
        *,
        shards: int = 1,
        limits: IntakeLimits | None = None,
        lateness_s: int = 600,
        tells: bool = False,
    ) -> None:
        self.counts = ReplayCounts()
        self.told: list[Incident] = []
        self._limits = limits or IntakeLimits()
        self._lateness_s = lateness_s
        self._tells = tells
        self._count_of_shards = shards
        self._intake = Intake(pack, key, self._limits, one_clock=True)
        self.pack = self._intake.pack
        self._topics = {REPORTS, *self._intake.topics}
        self._terms: Terms = self._intake.terms
        self._router = Router(self._intake.terms, shards)
        self._shards: dict[int, Shard] = {}
        self._records = SourceRecords()
        self._reads_reports: bool | None = None

    def take(self, messages: Sequence[RecordedMessage]) -> tuple[list[Assignment], list[DeadLetter]]:
        """Replay some records, in order of decision.

        Records of other topics are ignored and counted.  Raises :class:`RecordingError` when a recording holds both
        source topics and `reports`: each report would count twice.
        """
        counts = Counter(message.topic for message in messages)
        kinds = {topic == REPORTS for topic in counts if topic in self._topics}
        for reads_reports in sorted(kinds):
            if self._reads_reports is None:
                self._reads_reports = reads_reports
            if self._reads_reports != reads_reports:
                raise RecordingError(
                    "the recordings hold both source topics and `reports`, which would count every report twice; "
                    "record them apart (`citybrain record --topics …`) and replay one"
                )
        self.told = []
        self.counts.ignored_records.update({topic: n for topic, n in counts.items() if topic not in self._topics})
        ours = [message for message in messages if message.topic in self._topics]
        self.counts.records += len(ours)
        if self._reads_reports:
            return self._take_blocks(ours)
        return self._take_sources(ours)

    def incidents(self) -> list[Incident]:
        """All incidents as they stand, sorted by id."""
        told = [incident for shard in self._shards.values() for incident in shard.incidents()]
        return sorted(told, key=lambda incident: incident.incident_id)

    @property
    def datum_findings(self) -> tuple[Finding, ...]:
        """The senders whose positions are not where they are declared to be; none of a recording of `reports`."""
        return self._intake.datum_findings

    def _shard(self, number: int) -> Shard:
        if number not in self._shards:
            self._shards[number] = Shard(
                self._terms,
                lateness_s=self._lateness_s,
                remember_s=self._limits.too_old_s,
                one_clock=not self._reads_reports,
                tells=self._tells,
            )
        return self._shards[number]

    def _take_sources(self, messages: Sequence[RecordedMessage]) -> tuple[list[Assignment], list[DeadLetter]]:
        batch = self._intake.take([self._records.of(message) for message in messages])
        counts = self.counts
        counts.elements += batch.elements
        counts.quiet_readings += batch.quiet_readings
        counts.elements_by_source.update(batch.elements_by_source)
        decided: list[tuple[int, Assignment]] = []
        dead = list(zip(batch.dead_letter_records, batch.dead_letters, strict=True))
        for number, (rows, places, feedback) in self._router.split(batch.reports, batch.feedback).items():
            decisions = self._shard(number).apply(
                batch.reports.take(rows),
                self.pack.version,
                feedback,
                owns=owner(self.pack.code, number, self._count_of_shards),
            )
            self._count(decisions)
            decided.extend(zip(rows[decisions.rows].tolist(), decisions.assignments, strict=True))
            dead.extend(
                (batch.feedback_records[places[place]], letter)
                for place, letter in zip(decisions.dead_letter_rows, decisions.dead_letters, strict=True)
            )
        decided.sort(key=lambda item: item[0])
        dead.sort(key=lambda item: (item[0], item[1].index))
        assignments = [assignment for _, assignment in decided]
        dead_letters = [letter for _, letter in dead]
        counts.dead_letters.update(letter.reason.value for letter in dead_letters)
        return assignments, dead_letters

    def _take_blocks(self, messages: Sequence[RecordedMessage]) -> tuple[list[Assignment], list[DeadLetter]]:
        assignments: list[Assignment] = []
        dead_letters: list[DeadLetter] = []
        for message in messages:
            try:
                block = decode_block(message.value, self._terms)
            except BlockError as error:
                # A fold with a block left out would be another city's day.
                raise BlockError(f"{message.topic}:{message.partition or 0}:{message.offset}: {error}") from error
            decisions = self._shard(message.partition or 0).apply_block(block)
            self.counts.elements += len(block.reports) + len(block.feedback)
            self._count(decisions)
            assignments.extend(decisions.assignments)
            dead_letters.extend(decisions.dead_letters)
        self.counts.dead_letters.update(letter.reason.value for letter in dead_letters)
        return assignments, dead_letters

    def _count(self, decisions: Decisions) -> None:
        self.counts.outcomes.update(decisions.outcomes())
        self.counts.corrections += decisions.corrections
        self.counts.redelivered += decisions.redelivered
        self.counts.quiet_readings += decisions.quiet_readings
        self.counts.feedback.update(decisions.feedback)
        self.counts.feedback_repeats += decisions.feedback_repeats.total()
        self.told.extend(decisions.incidents)
