"""Located reports beside what clerks said of them: what `streams.fitting` learns from.

Both come from one pass of the service's own intake and rules, so whatever is learnt holds for what the service sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streams.evaluation import NONE, Index, Truth
from streams.feedback import Feedback
from streams.feedback_labels import FeedbackLabels, labels_of
from streams.intake import Intake
from streams.messages import REPORTS, SOURCES, FeedbackMessage, Outcome
from streams.pack import CityPack
from streams.recording import RecordedMessage
from streams.reports import LocatedReports
from streams.shard import Shard
from streams.source_records import SourceRecords
from streams.terms import Terms

MOST = 0.9
"""Share of the reports of which anything is known that must have a label, for labels to be complete: then it is known
of nearly all pairs of reports whether they are one event or two."""

_MESSAGE = msgspec.json.Decoder(FeedbackMessage)
_NO_REPORT = {Outcome.REPEAT.value, Outcome.AMENDED.value, Outcome.NOT_AN_EVENT.value}


class LabelError(ValueError):
    """Recording and truth do not go together; the message says in which way and what to do."""


@dataclass(frozen=True, eq=False)
class LabelledReports:
    """Reports in stream order; repeats, amendments and consultations are left out.

    Attributes
    ----------
    cluster : int64
        Number of the true event, `NONE` where nobody labelled it.
    flag : int64
        1 flagged as a duplicate, 0 not flagged, which proves nothing, `NONE` where that is not known.
    """

    pack: CityPack
    terms: Terms
    reports: LocatedReports
    cluster: Index
    flag: Index

    def __len__(self) -> int:
        return len(self.cluster)

    def take(self, rows: npt.NDArray[Any]) -> LabelledReports:
        """Some rows (a mask or indices), in that order."""
        return replace(self, reports=self.reports.take(rows), cluster=self.cluster[rows], flag=self.flag[rows])

    def hiding(self, rows: npt.NDArray[np.bool_]) -> LabelledReports:
        """The same reports, but nothing is known of those ``rows``."""
        return replace(self, cluster=np.where(rows, NONE, self.cluster), flag=np.where(rows, NONE, self.flag))

    @property
    def is_complete(self) -> bool:
        """Whether `MOST` of what is known of the reports is which of them speak of one event."""
        has_label = self.cluster != NONE
        return bool(np.count_nonzero(has_label) >= MOST * np.count_nonzero(has_label | (self.flag != NONE)))

    def before(self, time_ms: int) -> LabelledReports:
        """The reports of before a time.

        Where labels are incomplete nothing is known of a true event of which only one report is left.
        """
        early = self.take(self.reports.time_ms < time_ms)
        if self.is_complete:
            return early
        known = early.cluster[early.cluster != NONE]
        size = np.bincount(known, minlength=int(self.cluster.max(initial=0)) + 1)
        alone = (early.cluster != NONE) & (size[early.cluster] < 2)
        return replace(early, cluster=np.where(alone, NONE, early.cluster))


class LabelledStream:
    """Takes a recording in, chunk by chunk; then a truth or its own feedback gives the labels."""

    def __init__(self, pack: CityPack, key: bytes) -> None:
        self._pack = pack
        self._intake = Intake(pack, key, one_clock=True)
        self._shard = Shard(self._intake.terms, one_clock=True)
        self._topics = set(self._intake.topics)
        self._records = SourceRecords()
        self._parts: list[LocatedReports] = []
        self._incidents: list[str] = []
        self._row_of: dict[str, int] = {}
        self._feedback: list[Feedback] = []

    def take(self, messages: Sequence[RecordedMessage]) -> None:
        """Some records, in order; those of other topics are ignored."""
        if any(message.topic == REPORTS for message in messages):
            raise LabelError(
                "the recording holds `reports`, what the service made of its sources' messages; "
                "record the topics of the sources themselves"
            )
        records = [self._records.of(one) for one in messages if one.topic in self._topics]
        batch = self._intake.take(records)
        self._feedback += batch.feedback
        decisions = self._shard.apply(batch.reports, self._pack.version, batch.feedback)
        rows, categories = [], []
        for row, one in zip(decisions.rows.tolist(), decisions.assignments, strict=True):
            if one.outcome in _NO_REPORT or one.incident_id is None:
                continue
            if one.revision == 0:
                self._row_of[one.origin] = len(self._incidents)
                self._incidents.append(one.incident_id)
                rows.append(row)
                categories.append(self._pack.category_index(one.category))
            else:
                # A second thought.
                self._incidents[self._row_of[one.origin]] = one.incident_id
        part = batch.reports.take(np.array(rows, np.int64))
        # Of a reading the rules alone know what it reports.
        part.category = np.array(categories, np.int32)
        self._parts.append(part)

    def labelled(self, truth: Truth) -> LabelledReports:
        """All that was taken in, with its labels.

        Raises `LabelError` where the truth speaks of none of the reports, or tells of no two reports of one event.
        """
        reports = LocatedReports.concatenate(self._parts)
        row_of: dict[tuple[str, str], int] = {}
        twice: set[tuple[str, str]] = set()
        columns = zip(reports.source.tolist(), reports.report_id.tolist(), strict=True)
        for row, (source, report_id) in enumerate(columns):
            key = (SOURCES[source] if truth.has_source else "", report_id)
            if row_of.setdefault(key, row) != row:
                twice.add(key)
        keys = list(zip(truth.sources, truth.report_ids, strict=True))
        doubtful = next((key for key in keys if key in twice), None)
        if doubtful is not None and not truth.has_source:
            raise LabelError(
                f"report {doubtful[1]!r} of the truth is several reports of the recording; add a `source` column"
            )
        at = np.array([row_of.get(key, NONE) for key in keys], np.int64)
        known = at != NONE
        if not known.any():
            example = f", such as {keys[0][1]!r}," if keys else ""
            raise LabelError(
                f"the truth has {len(keys):,} reports, and none of them{example} is in the recording; "
                "are both of the same city and time?"
            )
        cluster = np.full(len(reports), NONE, np.int64)
        flag = np.full(len(reports), NONE, np.int64)
        cluster[at[known]] = truth.cluster[known]
        flag[at[known]] = truth.is_duplicate[known]
        return LabelledReports(self._pack, self._intake.terms, reports, cluster, flag)

    def labelled_by_feedback(self, until_ms: int | None = None) -> tuple[LabelledReports, FeedbackLabels]:
        """All that was taken in, labelled by the feedback among it; what came at ``until_ms`` or later is left out.

        Raises `LabelError` where there is no feedback, or none about an incident of the recording.
        """
        said = [one for one in self._feedback if until_ms is None or one.time_ms < until_ms]
        if not said:
            raise LabelError(
                "the recording has no `dispatch.feedback`, so nothing says which reports are one event; "
                "record that topic too, or give a truth"
            )
        reports = LocatedReports.concatenate(self._parts)
        names = zip((SOURCES[number] for number in reports.source.tolist()), reports.report_id.tolist(), strict=True)
        labels = labels_of(
            self._incidents,
            list(names),
            reports.ingested_ms.tolist(),
            [(one.time_ms, _MESSAGE.decode(one.value)) for one in said],
        )
        if not labels.seen_to:
            raise LabelError(
                "the feedback tells of no incident that this city makes of the recording; "
                f"{labels.unknown:,} others are named, so --city may not be the pack that they were made with"
            )
        labelled = LabelledReports(self._pack, self._intake.terms, reports, labels.cluster, labels.flag)
        return labelled if until_ms is None else labelled.before(until_ms), labels
