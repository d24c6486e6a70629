"""One shard's fold: blocks of reports, readings and feedback in, assignments, incidents and dead letters out.

A pure fold over a partition of the `reports` topic: same log, same incidents, byte for byte, whatever the pack is now.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streams.blocks import Block, Mark
from streams.copies import DeviceCopies
from streams.dead_letters import DeadLetter
from streams.dedupe import Decided, Dedupe
from streams.dedupe_kernels import (
    AFTER_ITS_END,
    AMENDED,
    BEFORE_ITS_END,
    FOUNDED,
    IN_WINDOW,
    LATE,
    NOT_AN_EVENT,
    NOT_THE_SAME,
    OUTCOMES,
    RECURRENCE,
    REDELIVERED,
    REPEAT,
    TERMS,
)
from streams.feedback import ACTIONS, APPLIED, CLOSED, REPEATED, STATUSES, Feedback, columns_of
from streams.feedback import REDELIVERED as FEEDBACK_REDELIVERED
from streams.messages import (
    SAME_PLACES,
    SOURCES,
    Assignment,
    Evidence,
    Incident,
    Outcome,
    RunnerUp,
    Why,
    source_of,
)
from streams.readings import AlarmStates
from streams.reports import NO_POSITION, LocatedReports
from streams.routing import owner
from streams.terms import CITY_ITSELF, Terms
from streams.witnesses import confidence_of

_LATEST_KEPT = 4
"""Of how many latest reports of an incident is known which they are: one may leave it again."""


@dataclass(slots=True)
class Decisions:
    """What a batch of reports and feedback led to.

    ``assignments`` are in the order of the reports, ``rows`` the reports they speak of, or that a correction of an
    earlier answer came of; ``incidents`` are what consumers must be told, in order: each opening, reopening, further
    source, confirmation, amendment, correction and feedback, and the last state of whatever changed; one that is
    suspected is not for dispatch centres.  ``dead_letters`` are the feedback that was refused, ``dead_letter_rows``
    their places in the feedback and ``refused_actions`` what each wanted.  ``feedback`` counts by action what was
    applied,
    ``feedback_repeats`` what had been before.  ``newest_ingested_ms`` is the newest ingestion time among reports and
    feedback, 0 without any.
    """

    assignments: list[Assignment] = field(default_factory=list)
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    incidents: list[Incident] = field(default_factory=list)
    redelivered: int = 0
    quiet_readings: int = 0
    dead_letters: list[DeadLetter] = field(default_factory=list)
    dead_letter_rows: list[int] = field(default_factory=list)
    refused_actions: list[str] = field(default_factory=list)
    feedback: Counter[str] = field(default_factory=Counter)
    feedback_repeats: Counter[str] = field(default_factory=Counter)
    newest_ingested_ms: int = 0

    def outcomes(self) -> Counter[str]:
        """How many assignments of each outcome."""
        return Counter(assignment.outcome for assignment in self.assignments if not assignment.revision)

    @property
    def corrections(self) -> int:
        """How many earlier answers were taken back."""
        return sum(assignment.revision > 0 for assignment in self.assignments)


class _Loose(NamedTuple):
    """What an assignment says of a report that may yet change its mind."""

    origin: str
    source: int
    report_id: str
    time_ms: int
    category: int


class Shard:
    """Folds the reports of some category groups of one city.

    ``terms`` are those that the reports' numbers stand for; several shards may share them.  ``lateness_s``,
    ``remember_s`` and ``one_clock`` as in :class:`streams.dedupe.Dedupe`.  Without ``tells`` no batch tells the
    incidents it changed; :meth:`incidents` has them all in the end.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        lateness_s: int = 600,
        remember_s: int = 30 * 86_400,
        one_clock: bool = False,
        tells: bool = True,
    ) -> None:
        self.terms = terms
        self.dedupe = Dedupe(terms, lateness_s=lateness_s, remember_s=remember_s, one_clock=one_clock)
        self._tells = tells
        self._alarms = AlarmStates(remember_s * 1000)
        self._copies = DeviceCopies(remember_s * 1000)
        self._pack_versions: list[str] = []
        self._originals: dict[str, int] = {}
        # First and latest report of each incident, by row; texts do not fit the core's columns.
        self._first: list[Evidence] = []
        self._latest: list[tuple[Evidence, ...]] = []
        self._loose: list[_Loose | None] = []  # by its place in the core

    def __len__(self) -> int:
        return self.dedupe.count

    def by_status(self) -> dict[str, int]:
        """How many incidents stand at each status."""
        return {status.value: count for status, count in zip(STATUSES, self.dedupe.by_status, strict=True)}

    def apply_block(self, block: Block, *, silent: bool = False) -> Decisions:
        """Fold one block; ``silent`` changes the state alone, as after a restart."""
        self.mark(block.marks)
        owns = owner(block.city, *block.shard)
        return self.apply(block.reports, block.pack_version, block.feedback, owns=owns, silent=silent)

    def mark(self, marks: Iterable[Mark]) -> None:
        """Fold the marks of a block or a tick."""
        for mark in marks:
            if source_of(mark.topic) is not None:
                self.dedupe.mark(self.terms.topic(mark.topic), mark.partition, mark.newest_ms, mark.drained)

    def apply(
        self,
        reports: LocatedReports,
        pack_version: str,
        feedback: Sequence[Feedback] = (),
        *,
        owns: Callable[[str], bool] = lambda group: True,
        silent: bool = False,
    ) -> Decisions:
        """Fold reports and feedback in order.

        ``owns`` tells which category groups are this shard's: of a reading that several judge, one makes the report.
        """
        if not len(reports) and not feedback:
            return Decisions()
        if pack_version not in self._pack_versions:
            self._pack_versions.append(pack_version)
        reports, feedback, kept, quiet_readings = self._judge(reports, feedback, owns)
        self._copies.unify(reports, self.terms)
        before = len(self._originals)
        columns = columns_of(feedback, self.terms.groups, self._originals) if feedback else None
        decided = self.dedupe.apply(reports, self._pack_versions.index(pack_version), columns)
        self._forget_originals(before, decided)
        corrections = self._corrections(reports, decided)
        snapshot_evidence = self._gather_evidence(reports, decided, corrections, tells=self._tells and not silent)
        redelivered = int((decided.outcome == REDELIVERED).sum())
        if silent:
            return Decisions(redelivered=redelivered, quiet_readings=quiet_readings)
        rows = np.flatnonzero(decided.outcome != REDELIVERED)
        assignments = self._assignments(reports, decided, rows)
        if corrections:
            # A correction follows the answer that led to it.
            of_row = [*rows.tolist(), *(int(correction["row"]) for correction, _ in corrections)]
            assignments += [self._corrected(correction, loose) for correction, loose in corrections]
            order = np.argsort(of_row, kind="stable")
            rows = np.array(of_row, np.int64)[order]
            assignments = [assignments[place] for place in order.tolist()]
        decisions = Decisions(
            assignments,
            rows if kept is None else kept[rows],
            self._incidents(decided.snapshots, snapshot_evidence) if self._tells else [],
            redelivered,
            quiet_readings,
            newest_ingested_ms=max(
                int(reports.ingested_ms.max(initial=0)), max((one.ingested_ms for one in feedback), default=0)
            ),
        )
        self._answer_feedback(feedback, decided, decisions)
        return decisions

    def _judge(
        self, reports: LocatedReports, feedback: Sequence[Feedback], owns: Callable[[str], bool]
    ) -> tuple[LocatedReports, Sequence[Feedback], npt.NDArray[np.int64] | None, int]:
        """What is left when the rules have judged the readings.

        Reports, feedback, the rows kept (None where all were), and how many readings were quiet.
        """
        readings = reports.reading_rows()
        if not len(readings):
            return reports, feedback, None, 0
        judged = reports.take(slice(None))
        judged.category = reports.category.copy()
        keep = np.ones(len(reports), bool)
        quiet = 0
        columns = (reports.reading, reports.device, reports.time_ms, reports.mark_ms)
        for row, (metric, value, rules), device, time_ms, mark_ms in zip(
            readings.tolist(), *(column[readings].tolist() for column in columns), strict=True
        ):
            raising = self._alarms.judge(device, metric, value, time_ms, mark_ms, [terms for terms, _ in rules])
            reporting = rules[max(raising, 0)][1]  # a quiet one is counted where its first rule reports
            owned = owns(self.terms.categories[reporting].group)
            if raising >= 0 and owned:
                judged.category[row] = reporting
                continue
            keep[row] = False
            quiet += raising < 0 and owned
        kept = np.flatnonzero(keep)
        before = np.searchsorted(kept, [one.before for one in feedback]).tolist()
        moved = [msgspec.structs.replace(one, before=count) for one, count in zip(feedback, before, strict=True)]
        return judged.take(kept), moved, kept, quiet

    def _forget_originals(self, before: int, decided: Decided) -> None:
        """Let go of the newest that no incident went into, so that what is refused takes no room."""
        applied = decided.feedback[decided.feedback["result"] == APPLIED]
        used = int(applied["merged_into"].max(initial=-1))
        while len(self._originals) > max(before, used + 1):
            self._originals.popitem()

    def _answer_feedback(self, feedback: Sequence[Feedback], decided: Decided, decisions: Decisions) -> None:
        results, statuses = decided.feedback["result"].tolist(), decided.feedback["status"].tolist()
        for row, (one, result, status) in enumerate(zip(feedback, results, statuses, strict=True)):
            action = ACTIONS[one.action].value
            if result == APPLIED:
                decisions.feedback[action] += 1
            elif result == REPEATED:
                decisions.feedback_repeats[action] += 1
            elif result == FEEDBACK_REDELIVERED:
                decisions.redelivered += 1
            else:
                decisions.dead_letters.append(one.dead_letter(result, status))
                decisions.dead_letter_rows.append(row)
                decisions.refused_actions.append(action)

    def incidents(self) -> list[Incident]:
        """Every incident as it stands, sorted by id."""
        evidence = [self._evidence(number) for number in range(self.dedupe.count)]
        told = self._incidents(self.dedupe.incidents[: self.dedupe.count], evidence)
        return sorted(told, key=lambda incident: incident.incident_id)

    # ------------------------------------------------------------------------------------------------ evidence

    def _corrections(self, reports: LocatedReports, decided: Decided) -> list[tuple[np.void, _Loose]]:
        """Second thoughts, each with the report that has them; and whatever may have some, remembered."""
        new = np.flatnonzero(decided.loose_at >= 0).tolist()
        if not new and not len(decided.corrections):
            return []
        events: list[tuple[int, np.void | None]] = [(row, None) for row in new]
        events += [(int(correction["row"]), correction) for correction in decided.corrections]
        corrections = []
        # In the order in which the core gave places away and took them back.
        for row, correction in sorted(events, key=lambda event: event[0]):
            if correction is not None:
                at = int(correction["loose_at"])
                loose, self._loose[at] = self._loose[at], None
                assert loose is not None, "it was remembered when it joined"
                corrections.append((correction, loose))
                continue
            at = int(decided.loose_at[row])
            self._loose.extend([None] * (at + 1 - len(self._loose)))
            self._loose[at] = _Loose(
                self._origin(reports, row),
                int(reports.source[row]),
                reports.report_id[row],
                int(reports.time_ms[row]),
                int(reports.category[row]),
            )
        return corrections

    def _origin(self, reports: LocatedReports, row: int) -> str:
        topic = self.terms.topics[int(reports.topic[row])]
        return f"{topic}:{int(reports.partition[row])}:{int(reports.offset[row])}:{int(reports.index[row])}"

    def _gather_evidence(
        self,
        reports: LocatedReports,
        decided: Decided,
        corrections: Sequence[tuple[np.void, _Loose]],
        *,
        tells: bool,
    ) -> list[list[Evidence]]:
        """Advance first and latest report row by row; returns the evidence of each snapshot, none if nobody is told."""
        told = np.argsort(decided.snapshot_at, kind="stable") if tells else np.zeros(0, np.int64)
        order = told.tolist()
        due = [*decided.snapshot_at[told].tolist(), 2 * len(reports) + 2]
        incident_of = decided.snapshot_incident[told].tolist()
        of_snapshot: list[list[Evidence]] = [[]] * len(order)
        taken = corrected = 0
        sources = reports.source.tolist()
        incidents = decided.incident.tolist()
        ids = reports.report_id.tolist()
        is_new = (decided.incident >= 0) & ~np.isin(decided.outcome, (REPEAT, AMENDED, REDELIVERED))
        for row in [*np.flatnonzero(is_new).tolist(), len(reports)]:
            while due[taken] <= 2 * row:  # what was told before this report changed anything
                of_snapshot[order[taken]] = self._evidence(incident_of[taken])
                taken += 1
            if row == len(reports):
                break
            evidence = Evidence(SOURCES[sources[row]], ids[row])
            if incidents[row] == len(self._first):
                self._first.append(evidence)
                self._latest.append(())
            else:
                self._latest[incidents[row]] = (*self._latest[incidents[row]], evidence)[-_LATEST_KEPT:]
            while corrected < len(corrections) and corrections[corrected][0]["row"] == row:
                correction, loose = corrections[corrected]
                left, joined = int(correction["left"]), int(correction["joined"])
                evidence = Evidence(SOURCES[loose.source], loose.report_id)
                self._latest[left] = tuple(one for one in self._latest[left] if one != evidence)
                self._latest[joined] = (*self._latest[joined], evidence)[-_LATEST_KEPT:]
                corrected += 1
        return of_snapshot

    def _evidence(self, incident: int) -> list[Evidence]:
        return [self._first[incident], *self._latest[incident][-1:]]

    # ------------------------------------------------------------------------------------------------- outputs

    def _incident_ids(self, rows: npt.NDArray[np.void]) -> list[str]:
        return [
            f"{self.terms.city}-{self.terms.categories[category].group}-{hi:016x}{lo:016x}"
            for category, hi, lo in zip(
                rows["category"].tolist(), rows["key_hi"].tolist(), rows["key_lo"].tolist(), strict=True
            )
        ]

    def _incidents(self, rows: npt.NDArray[np.void], evidence: list[list[Evidence]]) -> list[Incident]:
        opened, first, last, updated = (
            _rfc3339(rows[name]) for name in ("opened_ms", "first_ms", "last_ms", "updated_ms")
        )
        closed: list[str | None] = [None] * len(rows)
        for row, closed_at in zip(
            np.flatnonzero(rows["status"] == CLOSED).tolist(),
            _rfc3339(rows["ended_ms"][rows["status"] == CLOSED]),
            strict=True,
        ):
            closed[row] = closed_at
        past = np.unique(rows["recurrence_of"])
        past = past[past >= 0]
        past_ids = dict(zip(past.tolist(), self._incident_ids(self.dedupe.incidents[past]), strict=True))
        numbers = zip(
            *(
                rows[name].tolist()
                for name in (
                    "version", "category", "cell", "lon_e7", "lat_e7", "accuracy_cm",
                    "report_count", "repeat_count", "by_source", "pack", "status", "recurrence_of", "witness_count",
                    "odds", "merged_into",
                )
            ),
            strict=True,
        )  # fmt: skip
        ids = self._incident_ids(rows)
        originals = list(self._originals) if (rows["merged_into"] >= 0).any() else []
        made = []
        for i, (
            version, kind, cell, lon_e7, lat_e7, accuracy_cm, reports, repeats, by_source, pack, status, recurrence_of,
            witnesses, odds, merged_into,
        ) in enumerate(numbers):  # fmt: skip
            category = self.terms.categories[kind]
            codes = CITY_ITSELF if cell < 0 else self.terms.cells[cell]
            placed = lon_e7 != NO_POSITION
            made.append(
                Incident(
                    incident_id=ids[i],
                    version=version,
                    status=_STATUS_WORDS[status],
                    category=category.code,
                    category_name=category.name,
                    priority=category.priority,
                    department=category.department,
                    grid_code=codes.grid_code,
                    community_code=codes.community_code,
                    street_code=codes.street_code,
                    county_code=codes.county_code,
                    layer_codes=dict(codes.layer_codes),
                    lon=lon_e7 / 1e7 if placed else None,
                    lat=lat_e7 / 1e7 if placed else None,
                    accuracy_m=accuracy_cm / 100 if placed else None,
                    opened_at=opened[i],
                    first_report_at=first[i],
                    last_report_at=last[i],
                    updated_at=updated[i],
                    closed_at=closed[i],
                    report_count=reports,
                    repeat_count=repeats,
                    sources={source: count for source, count in zip(SOURCES, by_source, strict=True) if count},
                    witness_count=witnesses,
                    confidence=confidence_of(odds),
                    merged_into=originals[merged_into] if merged_into >= 0 else None,
                    recurrence_of=past_ids.get(recurrence_of),
                    pack_version=self._pack_versions[pack],
                    evidence=evidence[i],
                )
            )
        return made

    def _assignments(self, reports: LocatedReports, decided: Decided, rows: npt.NDArray[np.int64]) -> list[Assignment]:
        took = reports.take(rows)
        pasts = self.dedupe.incidents["recurrence_of"][decided.incident[rows[decided.how[rows] == RECURRENCE]]]
        numbers = np.unique(np.concatenate([decided.incident[rows], decided.runner_up[rows], pasts]))
        numbers = numbers[numbers >= 0]
        ids = dict(zip(numbers.tolist(), self._incident_ids(self.dedupe.incidents[numbers]), strict=True))
        terms = self.terms
        columns = (
            decided.judged_by[rows], decided.outcome[rows], decided.how[rows], decided.same[rows],
            decided.incident[rows],
            decided.allowed_cm[rows], decided.score[rows], decided.terms[rows], decided.distance_cm2[rows],
            decided.gap_ms[rows], decided.behind_ms[rows], decided.runner_up[rows], decided.runner_up_cm2[rows],
            decided.runner_up_score[rows], took.lon_e7 == NO_POSITION, took.source, took.category, took.topic,
            took.partition, took.offset, took.index, took.report_id,
        )  # fmt: skip
        made = []
        for (
            event_time, of, outcome, how, same, incident, allowed_cm, points, its_terms, cm2, gap_ms, behind_ms,
            runner_up, runner_up_cm2, runner_up_score, is_nowhere, source, category, topic, partition, offset, index,
            report_id,
        ) in zip(
            _rfc3339(took.time_ms), *(column.tolist() for column in columns), strict=True
        ):  # fmt: skip
            score: int | None = None
            distance_m: float | None = None
            gap_s: float | None = None
            if outcome in (REPEAT, AMENDED):
                why = Why(rule="same_report")
            elif outcome == NOT_AN_EVENT:
                why = Why(rule="not_an_event")
            else:
                matched = how not in (FOUNDED, RECURRENCE)
                if is_nowhere:
                    why = Why(rule="no_position")
                else:
                    why = self._why(_RULE_WORDS[how], allowed_cm, of, same)
                if how == RECURRENCE:
                    why.recurrence_of = ids[int(self.dedupe.incidents["recurrence_of"][incident])]
                if matched:
                    score = points
                    why.terms = _named(its_terms)
                    distance_m = round(math.sqrt(cm2) / 100, 1)
                    gap_s = round(gap_ms / 1000, 1)
                if runner_up >= 0:
                    why.runner_up = RunnerUp(ids[runner_up], runner_up_score, round(math.sqrt(runner_up_cm2) / 100, 1))
                    if how == FOUNDED:
                        why.rule = "not_enough"
                if outcome == LATE:
                    why.late_s = round(behind_ms / 1000, 1)
                    why.found = matched
            made.append(
                Assignment(
                    origin=f"{terms.topics[topic]}:{partition}:{offset}:{index}",
                    revision=0,
                    source=SOURCES[source],
                    report_id=report_id,
                    event_time=event_time,
                    incident_id=ids.get(incident),
                    outcome=_OUTCOME_WORDS[outcome],
                    score=score,
                    distance_m=distance_m,
                    gap_s=gap_s,
                    category=terms.categories[category].code,
                    why=why,
                )
            )
        return made

    def _why(self, rule: str, allowed_cm: int, category: int, same: int) -> Why:
        match = self.terms.categories[category]
        window_ms = match.window_ms if same == NOT_THE_SAME else match.match.same_place_window_ms
        return Why(rule=rule, radius_m=allowed_cm / 100, window_s=window_ms / 1000, same_place=_PLACE_WORDS[same])

    def _corrected(self, correction: np.void, loose: _Loose) -> Assignment:
        """The second answer to a report."""
        numbers = np.array([correction["left"], correction["joined"]])
        left, joined = self._incident_ids(self.dedupe.incidents[numbers])
        of = int(self.dedupe.incidents["category"][correction["joined"]])
        why = self._why("second_thoughts", int(correction["allowed_cm"]), of, int(correction["same"]))
        why.terms = _named(correction["terms"].tolist())
        why.runner_up = RunnerUp(left, int(correction["left_score"]), None)
        return Assignment(
            origin=loose.origin,
            revision=1,
            source=SOURCES[loose.source],
            report_id=loose.report_id,
            event_time=_rfc3339(np.array([loose.time_ms]))[0],
            incident_id=joined,
            outcome=Outcome.JOINED.value,
            score=int(correction["score"]),
            distance_m=round(math.sqrt(correction["cm2"]) / 100, 1),
            gap_s=round(int(correction["gap_ms"]) / 1000, 1),
            category=self.terms.categories[loose.category].code,
            why=why,
        )


def _named(points: Sequence[int]) -> dict[str, int]:
    return {name: number for name, number in zip(TERMS, points, strict=True) if number}


_OUTCOME_WORDS = [outcome.value for outcome in OUTCOMES]
_STATUS_WORDS = [status.value for status in STATUSES]
_RULE_WORDS = {
    FOUNDED: "nothing_near",
    IN_WINDOW: "best_open",
    BEFORE_ITS_END: "best_ended",
    AFTER_ITS_END: "reopened",
    RECURRENCE: "recurrence",
}
_PLACE_WORDS = (None, *SAME_PLACES)


def _rfc3339(time_ms: npt.NDArray[np.int64]) -> list[str]:
    """RFC 3339 UTC with milliseconds."""
    text: list[str] = np.datetime_as_string(time_ms.astype("datetime64[ms]"), unit="ms", timezone="UTC").tolist()
    return text
