"""One shard's fold: blocks of reports in, assignments and incidents out.

A pure fold over a partition of the `reports` topic: same log, same incidents, byte for byte.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streams.blocks import Block, Mark
from streams.dedupe import LATE, NOT_AN_EVENT, OUTCOMES, REDELIVERED, REPEAT, Decided, Dedupe, DedupeRules
from streams.messages import (
    SOURCE_OF_TOPIC,
    SOURCES,
    TOPIC_OF_SOURCE,
    Assignment,
    Evidence,
    Incident,
    RunnerUp,
    Status,
    Why,
)
from streams.pack import CityPack
from streams.reports import NO_POSITION, LocatedReports

SCORE_OF_FOUNDING_POSITION = 1000
"""A report at the founding position scores this, one at the edge of the radius 0."""


class _Codes(NamedTuple):
    grid_code: str | None
    community_code: str | None
    street_code: str | None
    county_code: str | None


@dataclass(slots=True)
class Decisions:
    """What a batch of reports led to.

    ``assignments`` are in the order of the reports, ``rows`` the reports they speak of; ``incidents`` are what
    consumers must be told, in order: each opening, each further source, and the last state of whatever changed.
    ``newest_ingested_ms`` is the newest ingestion time among the reports, 0 without any.
    """

    assignments: list[Assignment] = field(default_factory=list)
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    incidents: list[Incident] = field(default_factory=list)
    redelivered: int = 0
    newest_ingested_ms: int = 0

    def outcomes(self) -> Counter[str]:
        """How many assignments of each outcome."""
        return Counter(assignment.outcome for assignment in self.assignments)


class Shard:
    """Folds the reports of some category groups of one city.

    ``one_clock`` as in :class:`streams.dedupe.Dedupe`.  Without ``tells`` no batch tells the incidents it changed;
    :meth:`incidents` has them all in the end.
    """

    def __init__(self, pack: CityPack, rules: DedupeRules, *, one_clock: bool = False, tells: bool = True) -> None:
        self.pack = pack
        self.dedupe = Dedupe(rules, one_clock=one_clock)
        self._tells = tells
        self._pack_versions: list[str] = []
        self._codes: dict[int, _Codes] = {-1: _Codes(None, None, None, None)}
        # First and latest report of each incident, by row; texts do not fit the core's columns.
        self._first: list[Evidence] = []
        self._latest: list[Evidence | None] = []

    def __len__(self) -> int:
        return self.dedupe.count

    def apply_block(self, block: Block, *, silent: bool = False) -> Decisions:
        """Fold one block; ``silent`` changes the state alone, as after a restart."""
        self.mark(block.marks)
        return self.apply(block.reports, block.pack_version, silent=silent)

    def mark(self, marks: Iterable[Mark]) -> None:
        """Fold the marks of a block or a tick."""
        for mark in marks:
            source = SOURCE_OF_TOPIC.get(mark.topic)
            if source is not None:
                self.dedupe.mark(SOURCES.index(source), mark.partition, mark.newest_ms, mark.drained)

    def apply(self, reports: LocatedReports, pack_version: str, *, silent: bool = False) -> Decisions:
        """Fold reports in order."""
        if not len(reports):
            return Decisions()
        if pack_version not in self._pack_versions:
            self._pack_versions.append(pack_version)
        decided = self.dedupe.apply(reports, self._pack_versions.index(pack_version))
        snapshot_evidence = self._gather_evidence(reports, decided)
        if silent:
            return Decisions(redelivered=int((decided.outcome == REDELIVERED).sum()))
        rows = np.flatnonzero(decided.outcome != REDELIVERED)
        return Decisions(
            self._assignments(reports, decided, rows),
            rows,
            self._incidents(decided.snapshots, snapshot_evidence) if self._tells else [],
            len(reports) - len(rows),
            int(reports.ingested_ms.max()),
        )

    def incidents(self) -> list[Incident]:
        """Every incident as it stands, sorted by id."""
        evidence = [
            [first] if latest is None else [first, latest]
            for first, latest in zip(self._first, self._latest, strict=True)
        ]
        told = self._incidents(self.dedupe.incidents[: self.dedupe.count], evidence)
        return sorted(told, key=lambda incident: incident.incident_id)

    # ------------------------------------------------------------------------------------------------ evidence

    def _gather_evidence(self, reports: LocatedReports, decided: Decided) -> list[list[Evidence]]:
        """Advance first and latest report row by row; returns the evidence of each snapshot."""
        order = np.argsort(decided.snapshot_row, kind="stable").tolist()
        snapshot_row = decided.snapshot_row.tolist()
        of_snapshot: list[list[Evidence]] = [[]] * len(order)
        next_snapshot = 0
        changing = np.flatnonzero((decided.incident >= 0) & (decided.outcome < REDELIVERED)).tolist()
        sources = reports.source.tolist()
        incidents = decided.incident.tolist()
        repeats = (decided.outcome == REPEAT).tolist()
        ids = reports.report_id
        for row in changing:
            incident = incidents[row]
            if not repeats[row]:
                evidence = Evidence(SOURCES[sources[row]], ids[row])
                if incident == len(self._first):
                    self._first.append(evidence)
                    self._latest.append(None)
                else:
                    self._latest[incident] = evidence
            while next_snapshot < len(order) and snapshot_row[order[next_snapshot]] == row:
                latest = self._latest[incident]
                first = self._first[incident]
                of_snapshot[order[next_snapshot]] = [first] if latest is None else [first, latest]
                next_snapshot += 1
        return of_snapshot

    # ------------------------------------------------------------------------------------------------- outputs

    def _incident_ids(self, rows: npt.NDArray[np.void]) -> list[str]:
        return [
            f"{self.pack.code}-{self.pack.categories[category].group}-{hi:016x}{lo:016x}"
            for category, hi, lo in zip(
                rows["category"].tolist(), rows["key_hi"].tolist(), rows["key_lo"].tolist(), strict=True
            )
        ]

    def _incidents(self, rows: npt.NDArray[np.void], evidence: list[list[Evidence]]) -> list[Incident]:
        opened, first, last, updated = (
            _rfc3339(rows[name]) for name in ("opened_ms", "first_ms", "last_ms", "updated_ms")
        )
        numbers = zip(
            *(
                rows[name].tolist()
                for name in (
                    "version", "category", "cell", "lon_e7", "lat_e7", "accuracy_cm",
                    "report_count", "repeat_count", "by_source", "pack",
                )
            ),
            strict=True,
        )  # fmt: skip
        ids = self._incident_ids(rows)
        made = []
        for i, (version, kind, cell, lon_e7, lat_e7, accuracy_cm, reports, repeats, by_source, pack) in enumerate(
            numbers
        ):
            category = self.pack.categories[kind]
            codes = self._codes_of(cell)
            placed = lon_e7 != NO_POSITION
            made.append(
                Incident(
                    incident_id=ids[i],
                    version=version,
                    status=_OPEN,
                    category=category.code,
                    category_name=category.name,
                    priority=category.priority,
                    department=category.department,
                    grid_code=codes.grid_code,
                    community_code=codes.community_code,
                    street_code=codes.street_code,
                    county_code=codes.county_code,
                    lon=lon_e7 / 1e7 if placed else None,
                    lat=lat_e7 / 1e7 if placed else None,
                    accuracy_m=accuracy_cm / 100 if placed else None,
                    opened_at=opened[i],
                    first_report_at=first[i],
                    last_report_at=last[i],
                    updated_at=updated[i],
                    report_count=reports,
                    repeat_count=repeats,
                    sources={source: count for source, count in zip(SOURCES, by_source, strict=True) if count},
                    pack_version=self._pack_versions[pack],
                    evidence=evidence[i],
                )
            )
        return made

    def _codes_of(self, cell: int) -> _Codes:
        codes = self._codes.get(cell)
        if codes is None:
            codes = self._codes[cell] = _codes_of(self.pack, cell)
        return codes

    def _assignments(self, reports: LocatedReports, decided: Decided, rows: npt.NDArray[np.int64]) -> list[Assignment]:
        took = reports.take(rows)
        incident_rows = decided.incident[rows].tolist()
        numbers = np.unique(np.concatenate([decided.incident[rows], decided.runner_up[rows]]))
        numbers = numbers[numbers >= 0]
        ids = dict(zip(numbers.tolist(), self._incident_ids(self.dedupe.incidents[numbers]), strict=True))
        event_time = _rfc3339(took.time_ms)
        categories = [self.pack.categories[number] for number in took.category.tolist()]
        category_of_incident = self.dedupe.incidents["category"][decided.incident[rows]].tolist()
        made = []
        for i, (row, outcome, incident, source, partition, offset, index, report_id) in enumerate(
            zip(
                rows.tolist(),
                decided.outcome[rows].tolist(),
                incident_rows,
                took.source.tolist(),
                took.partition.tolist(),
                took.offset.tolist(),
                took.index.tolist(),
                took.report_id.tolist(),
                strict=True,
            )
        ):
            score: int | None = None
            distance_m: float | None = None
            gap_s: float | None = None
            if outcome == REPEAT:
                why = Why(rule="same_report")
            elif outcome == NOT_AN_EVENT:
                why = Why(rule="not_an_event")
            else:
                allowed_cm = int(decided.allowed_cm[row])
                matched = bool(decided.matched[row])
                why = Why(
                    rule="nearest_open" if matched else "nothing_near",
                    radius_m=allowed_cm / 100,
                    window_s=self.pack.categories[category_of_incident[i]].window_s,
                )
                if matched:
                    score = _score(int(decided.distance_cm2[row]), allowed_cm)
                    distance_m = round(math.sqrt(decided.distance_cm2[row]) / 100, 1)
                    gap_s = round(int(decided.gap_ms[row]) / 1000, 1)
                    why.distance_points = score
                    runner_up = int(decided.runner_up[row])
                    if runner_up >= 0:
                        cm2 = int(decided.runner_up_cm2[row])
                        why.runner_up = RunnerUp(
                            ids[runner_up],
                            _score(cm2, int(decided.runner_up_allowed_cm[row])),
                            round(math.sqrt(cm2) / 100, 1),
                        )
                elif reports.lon_e7[row] == NO_POSITION:
                    why = Why(rule="no_position")
                if outcome == LATE:
                    why.late_s = round(int(decided.behind_ms[row]) / 1000, 1)
                    why.found = matched
            made.append(
                Assignment(
                    origin=f"{TOPIC_OF_SOURCE[SOURCES[source]]}:{partition}:{offset}:{index}",
                    revision=0,
                    source=SOURCES[source],
                    report_id=report_id,
                    event_time=event_time[i],
                    incident_id=ids.get(incident),
                    outcome=_OUTCOME_WORDS[outcome],
                    score=score,
                    distance_m=distance_m,
                    gap_s=gap_s,
                    category=categories[i].code,
                    why=why,
                )
            )
        return made


_OUTCOME_WORDS = [outcome.value for outcome in OUTCOMES]
_OPEN = Status.OPEN.value


def _score(cm2: int, allowed_cm: int) -> int:
    """1000 at the founding position, 0 at the edge of the radius, by the square of the distance."""
    if not allowed_cm:
        return SCORE_OF_FOUNDING_POSITION
    return SCORE_OF_FOUNDING_POSITION - SCORE_OF_FOUNDING_POSITION * cm2 // (allowed_cm * allowed_cm)


def _codes_of(pack: CityPack, cell: int) -> _Codes:
    grid = pack.grid
    by_level = {
        level: grid.codes[above]
        for level, above in zip(grid.levels, grid.ancestors[cell].tolist(), strict=True)
        if above >= 0
    }
    return _Codes(grid.codes[cell], by_level.get("community"), by_level.get("street"), by_level.get("county"))


def _rfc3339(time_ms: npt.NDArray[np.int64]) -> list[str]:
    """RFC 3339 UTC with milliseconds."""
    text: list[str] = np.datetime_as_string(time_ms.astype("datetime64[ms]"), unit="ms", timezone="UTC").tolist()
    return text
