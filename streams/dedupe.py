"""The dedupe core: which incident a report speaks of, and how far its handling has come.

A sequential, deterministic fold over columns.  Near is an incident of the report's category group that lies within
``radius_m`` of the incident's category plus the report's capped accuracy.  The nearest of those is meant that

1. it joins: the window (``last_report_at`` ± ``window_s``) covers the event time, or it has ended (closed or rejected),
   but not before the event time;
2. or reopens: it ended at most ``reopen_s`` before the event time.

Where there is none, the report founds an incident; that is the recurrence of the nearest one that ended earlier, or
never ended and whose window did at most ``reopen_s`` before.

Of those equally near the smaller (``opened_at``, id).  An incident that has recurred is joined in its window alone:
after that its successor stands for the place.  Distances are whole centimetres from the founding position, so ties are
exact and the same on every machine.  Feedback moves an incident's status, in the order of the log.

A report counts a witness of its incident, unless that one was heard of it before, and raises the incident's odds by his
(:mod:`.witnesses`).  Below its category's ``confirm_odds`` what a report founds, or reopens after it was rejected, is
suspected.

The state is five arrays: the incidents; open-addressing tables from (group, square of the plane) to incidents, from a
report's key to where it went, from an incident's key to the incident, and of the witnesses of incidents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geo.plane import metres_per_degree
from streams.dedupe_kernels import (
    ID_COUNT,
    INCIDENT,
    INCIDENT_COUNT,
    KEY,
    KEY_COUNT,
    NEVER,
    RECURRENCE_MS,
    RULE,
    SCALE_BITS,
    SQUARE,
    SQUARE_COUNT,
    STATUS_COUNTS,
    TOLD_COUNT,
    WITNESS,
    WITNESS_COUNT,
    advance,
    decide,
    place_keys,
    place_squares,
    place_witnesses,
)
from streams.feedback import CLOSED, COLUMNS, STATUSES, SUSPECTED, TRANSITION
from streams.reports import NO_POSITION, LocatedReports
from streams.terms import Terms
from streams.witnesses import UNKNOWN_ODDS, odds_of_column, witness_keys


@dataclass(frozen=True, slots=True)
class DedupeRules:
    """Terms compiled to arrays.

    Attributes
    ----------
    of_category : record array
        Radius, window and so on of each category of the terms.
    reach_lon_e7, reach_lat_e7 : int64 array
        Per group, half the side of its squares in 1e-7 degrees: no match of the group lies further apart than that
        anywhere in the city.
    """

    of_category: npt.NDArray[np.void]
    reach_lon_e7: npt.NDArray[np.int64]
    reach_lat_e7: npt.NDArray[np.int64]

    @classmethod
    def from_terms(cls, terms: Terms) -> DedupeRules:
        """The rules of some terms; those of the same terms grown later begin alike."""
        of_category = np.zeros(len(terms.categories), RULE)
        for number, category in enumerate(terms.categories):
            of_category[number] = (
                category.radius_cm, category.accuracy_cap_cm, category.window_ms, category.reopen_ms,
                terms.groups[category.group], category.odds, category.confirm_odds, category.event,
            )  # fmt: skip
        reach_cm = np.zeros(len(terms.groups), np.int64)
        np.maximum.at(reach_cm, of_category["group"], of_category["radius_cm"] + of_category["accuracy_cap_cm"])
        # Where a degree is shortest in the city, the reach spans most of it.
        south, north = terms.south_deg, terms.north_deg
        cm_per_e7 = (
            np.array([metres_per_degree(lat) for lat in (south, north, 0.0 if south < 0 < north else south)]) * 1e-5
        )
        lon_cm, lat_cm = cm_per_e7.min(axis=0)
        # A centimetre and two units more than the quotient: squares must never be narrower than a match, and a distance
        # is rounded to centimetres, of which a unit of longitude is a small part in the far north.
        reach_lon_e7 = np.ceil((reach_cm + 1) / lon_cm).astype(np.int64) + 2
        reach_lat_e7 = np.ceil((reach_cm + 1) / lat_cm).astype(np.int64) + 2
        return cls(of_category, reach_lon_e7, reach_lat_e7)


@dataclass(slots=True)
class Decided:
    """What the core decided, a row a report.

    Attributes
    ----------
    outcome : int8
        Index into `streams.dedupe_kernels.OUTCOMES`, or its `REDELIVERED`.
    incident : int32
        Row in :attr:`Dedupe.incidents`; -1 for none.
    how : int8
        How it and its incident came together: its `FOUNDED` to `RECURRENCE` (also when it was late).
    judged_by : int32
        The incident's category then, which an amendment may change; -1 where none was decided on.
    distance_cm2 : int64
        Square of the distance to the founding position; -1 where there was nothing to measure.
    gap_ms : int64
        From the incident's nearest report time known before, to this report's; -1 likewise.
    allowed_cm : int64
        The distance that would still have matched.
    behind_ms : int64
        How far the event time lay behind the watermark; negative when ahead of it.
    runner_up : int32
        Row of the second best incident, or -1; ``runner_up_cm2`` and ``runner_up_allowed_cm`` as above.
    snapshots : INCIDENT array
        Incidents as they stood when they must be told: at each opening, reopening, first report of a further source,
        confirmation, amendment and feedback, and last in the batch.  ``snapshot_at`` is ``2 * row + 1`` for the report
        that caused it, ``2 * before`` for feedback; ``snapshot_incident`` the incident.
    feedback : `streams.feedback.COLUMNS` array
        The feedback with its results.
    """

    outcome: npt.NDArray[np.int8]
    incident: npt.NDArray[np.int32]
    how: npt.NDArray[np.int8]
    judged_by: npt.NDArray[np.int32]
    distance_cm2: npt.NDArray[np.int64]
    gap_ms: npt.NDArray[np.int64]
    allowed_cm: npt.NDArray[np.int64]
    behind_ms: npt.NDArray[np.int64]
    runner_up: npt.NDArray[np.int32]
    runner_up_cm2: npt.NDArray[np.int64]
    runner_up_allowed_cm: npt.NDArray[np.int64]
    snapshots: npt.NDArray[np.void]
    snapshot_at: npt.NDArray[np.int64]
    snapshot_incident: npt.NDArray[np.int32]
    feedback: npt.NDArray[np.void]


class Dedupe:
    """The state of one shard's fold.

    ``incidents[:count]`` are all incidents ever founded here, in order of founding.  The tables double when half full;
    before they do, what can match no more is dropped from them, so they are bounded by the incidents that a report may
    still join, reopen or recur, the ids and witnesses within ``remember_s`` and the incidents.

    ``lateness_s``: how far behind the watermark a report may come without being late.  ``remember_s``: how long a
    message's id, and an incident's witness after it was heard last, is remembered, the `too_old` limit.  With
    ``one_clock`` all source partitions share one mark, as in the replay of a recording, which is one stream.
    """

    def __init__(
        self, terms: Terms, *, lateness_s: int = 600, remember_s: int = 30 * 86_400, one_clock: bool = False
    ) -> None:
        self._terms = terms
        self._lateness_ms = lateness_s * 1000
        self._remember_ms = remember_s * 1000
        self._one_clock = one_clock
        self._compiled: tuple[int, float, float] | None = None
        self.incidents = np.zeros(1024, INCIDENT)
        self.batch = 0
        self._used = np.zeros(STATUS_COUNTS + len(STATUSES), np.int64)
        self._squares = np.zeros(4096, SQUARE)
        self._squares["incident"] = -1
        self._keys = np.zeros(4096, KEY)
        self._ids = np.zeros(4096, KEY)
        self._witnesses = _witnesses_with(np.zeros(0, WITNESS), 0)
        self._partitions: dict[tuple[int, int], int] = {}
        # Newest ingestion time and drained flag of each source partition heard of, and the watermark.
        self._marks: dict[tuple[int, int], int] = {}
        self._mark_ms = np.full(16, NEVER, np.int64)
        self._drained = np.zeros(16, np.bool_)
        self._clock = np.array([NEVER], np.int64)
        self.rules = DedupeRules(np.zeros(0, RULE), np.zeros(0, np.int64), np.zeros(0, np.int64))

    @property
    def count(self) -> int:
        """How many incidents were ever founded here."""
        return int(self._used[INCIDENT_COUNT])

    @property
    def by_status(self) -> list[int]:
        """How many incidents stand at each of `streams.feedback.STATUSES`."""
        counts: list[int] = self._used[STATUS_COUNTS:].tolist()
        return counts

    @property
    def watermark_ms(self) -> int | None:
        """The shard's watermark, Unix ms; None before anything was heard."""
        return None if self._clock[0] == NEVER else int(self._clock[0])

    def mark(self, topic: int, partition: int, newest_ms: int, drained: bool) -> None:
        """A source partition was read up to ``newest_ms`` and, if ``drained``, holds nothing more."""
        row = self._mark_row(topic, partition)
        self._mark_ms[row] = max(int(self._mark_ms[row]), newest_ms)
        self._drained[row] = drained
        advance(self._mark_ms, self._drained, len(self._marks), self._clock)

    def apply(self, reports: LocatedReports, pack: int = 0, feedback: npt.NDArray[np.void] | None = None) -> Decided:
        """Decide on each report and each feedback, in order, and change the state.

        ``pack`` is the number to stamp on incidents founded here; ``feedback`` are `streams.feedback.COLUMNS`.
        """
        if feedback is None:
            feedback = np.zeros(0, COLUMNS)
        count = len(reports)
        self._compile()
        # The kernel does not look twice, and reads out of bounds without a word.
        if count and not 0 <= reports.category.min() <= reports.category.max() < len(self.rules.of_category):
            raise ValueError("a report of a category that these terms do not have")
        self._reserve(count + 2 * len(feedback))  # feedback takes up to two keys
        self.batch += 1
        lat_deg = np.where(reports.lat_e7 == NO_POSITION, 0, reports.lat_e7) * 1e-7
        scale = np.rint(np.array(metres_per_degree(lat_deg)) * 1e-5 * (1 << SCALE_BITS)).astype(np.int64)
        mark_rows, partitions = self._partition_rows(reports)
        room = 2 * count + len(feedback)  # each may be told at once, and its last state
        decided = Decided(
            np.zeros(count, np.int8),
            np.full(count, -1, np.int32),
            np.zeros(count, np.int8),
            np.full(count, -1, np.int32),
            np.full(count, -1, np.int64),
            np.full(count, -1, np.int64),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.full(count, -1, np.int32),
            np.full(count, -1, np.int64),
            np.zeros(count, np.int64),
            np.zeros(room, INCIDENT),
            np.zeros(room, np.int64),
            np.zeros(room, np.int32),
            feedback,
        )
        rules = self.rules
        self._used[TOLD_COUNT] = 0
        decide(
            count,
            reports.source,
            partitions,
            reports.offset,
            reports.index,
            reports.mark_ms,
            reports.ingested_ms,
            reports.time_ms,
            reports.lon_e7,
            reports.lat_e7,
            scale[0],
            scale[1],
            reports.accuracy_cm,
            reports.category,
            reports.cell,
            reports.key_hi,
            reports.key_lo,
            reports.content,
            witness_keys(reports.source, reports.witness),
            odds_of_column(reports.confidence),
            feedback,
            TRANSITION,
            pack,
            self.batch,
            rules.of_category,
            rules.reach_lon_e7,
            rules.reach_lat_e7,
            self._lateness_ms,
            self._remember_ms,
            mark_rows,
            len(self._marks),
            self._mark_ms,
            self._drained,
            self._clock,
            self._used,
            self.incidents,
            self._squares,
            self._keys,
            self._ids,
            self._witnesses,
            decided.outcome,
            decided.incident,
            decided.how,
            decided.judged_by,
            decided.distance_cm2,
            decided.gap_ms,
            decided.allowed_cm,
            decided.behind_ms,
            decided.runner_up,
            decided.runner_up_cm2,
            decided.runner_up_allowed_cm,
            decided.snapshots,
            decided.snapshot_at,
            decided.snapshot_incident,
        )
        told = int(self._used[TOLD_COUNT])
        decided.snapshots = decided.snapshots[:told]
        decided.snapshot_at = decided.snapshot_at[:told]
        decided.snapshot_incident = decided.snapshot_incident[:told]
        return decided

    def check(self) -> None:
        """Assert every invariant of the state; for tests."""
        incidents = self.incidents[: self.count]
        assert (incidents["report_count"] == incidents["by_source"].sum(axis=1)).all(), "counts by source add up"
        assert (incidents["version"] >= incidents["report_count"]).all(), "each report raised the version by one"
        assert (incidents["first_ms"] <= incidents["opened_ms"]).all(), "none was opened before its first report"
        assert (incidents["opened_ms"] <= incidents["last_ms"]).all(), "none was opened after its last report"
        ended = incidents["status"] >= CLOSED
        assert ((incidents["ended_ms"] != NEVER) == ended).all(), "those closed or rejected have an end, no other"
        by_status = np.bincount(incidents["status"], minlength=len(STATUSES)).tolist()
        assert by_status == self.by_status, "incidents are counted by status"
        past = incidents["recurrence_of"]
        assert (past < np.arange(len(past))).all(), "what recurs was there before"
        assert incidents["superseded"][past[past >= 0]].all(), "what has recurred is superseded"
        used = self._squares[self._squares["incident"] >= 0]
        assert len(used) == self._used[SQUARE_COUNT], "squares used are counted"
        assert len(np.unique(used["incident"])) == len(used), "an incident stands in one square only"
        assert incidents["squared"].sum() == len(used), "and knows that it does"
        assert (incidents["lon_e7"][used["incident"]] == used["lon_e7"]).all(), "squares repeat the founding position"
        keys = self._keys[self._keys["used"] == 1]
        assert len(keys) == self._used[KEY_COUNT], "keys used are counted"
        assert (keys["incident"] < self.count).all(), "keys lead to incidents that are there"
        witnesses = self._witnesses[self._witnesses["incident"] >= 0]
        assert len(witnesses) == self._used[WITNESS_COUNT], "witnesses used are counted"
        assert len(np.unique(witnesses[["incident", "witness"]])) == len(witnesses), "a witness stands there once"
        assert (incidents["witness_count"] >= 1).all(), "somebody saw it"
        assert (incidents["witness_count"] <= incidents["report_count"]).all(), "a report has one witness at most"
        rules = self.rules.of_category[incidents["category"]]
        doubtful = (incidents["odds"] != UNKNOWN_ODDS) & (incidents["odds"] < rules["confirm_odds"])
        assert doubtful[incidents["status"] == SUSPECTED].all(), "what is suspected is less sure than it must be"
        ids = self._ids[self._ids["used"] == 1]
        assert len(ids) == self._used[ID_COUNT] == self.count, "every incident has an id of its own"

    def _compile(self) -> None:
        """Take up what the terms have got since."""
        terms = self._terms
        stand = (len(terms.categories), terms.south_deg, terms.north_deg)
        if stand == self._compiled:
            return
        self._compiled = stand
        former, self.rules = self.rules, DedupeRules.from_terms(terms)
        groups = len(former.reach_lon_e7)
        # A wider radius or a larger city has wider squares, and then all stand elsewhere.
        if self._used[SQUARE_COUNT] and not (
            np.array_equal(former.reach_lon_e7, self.rules.reach_lon_e7[:groups])
            and np.array_equal(former.reach_lat_e7, self.rules.reach_lat_e7[:groups])
        ):
            self._place_again(0)

    def _reserve(self, count: int) -> None:
        """Room for ``count`` more of everything, so that the kernel never grows anything itself."""
        if self.count + count > len(self.incidents):
            grown = np.zeros(max(2 * len(self.incidents), self.count + count), INCIDENT)
            grown[: self.count] = self.incidents[: self.count]
            self.incidents = grown
        if 2 * (self._used[SQUARE_COUNT] + count) > len(self._squares):
            self._place_again(count)
        if 2 * (self._used[KEY_COUNT] + count) > len(self._keys):
            horizon_ms = self._clock[0] - self._remember_ms
            remembered = self._keys[(self._keys["used"] == 1) & (self._keys["ingested_ms"] >= horizon_ms)]
            self._keys = _keys_with(remembered, count)
            self._used[KEY_COUNT] = len(remembered)
        if 2 * (self._used[ID_COUNT] + count) > len(self._ids):
            self._ids = _keys_with(self._ids[self._ids["used"] == 1], count)
        if 2 * (self._used[WITNESS_COUNT] + count) > len(self._witnesses):
            horizon_ms = self._clock[0] - self._remember_ms
            known = (self._witnesses["incident"] >= 0) & (self._witnesses["heard_ms"] >= horizon_ms)
            self._used[WITNESS_COUNT] = known.sum()
            self._witnesses = _witnesses_with(self._witnesses[known], count)

    def _place_again(self, count: int) -> None:
        """The table of squares anew, with room for ``count`` more, without what no report can come upon any more."""
        held = self._squares[self._squares["incident"] >= 0]
        of = self.incidents[held["incident"]]
        rules = self.rules.of_category[of["category"]]
        window_ends_ms = of["last_ms"] + rules["window_ms"]
        # Whether it has ended or not, for feedback may change that any time.
        recurs_until_ms = np.maximum(window_ends_ms, of["ended_ms"] + RECURRENCE_MS) + rules["reopen_ms"]
        until_ms = np.where(of["superseded"], window_ends_ms, recurs_until_ms)
        still = until_ms >= self._clock[0] - self._lateness_ms
        self.incidents["squared"][held["incident"][~still]] = False
        held = held[still]
        self._squares = np.zeros(_power_of_two(4 * (len(held) + count)), SQUARE)
        self._squares["incident"] = -1
        place_squares(self._squares, held, rules["group"][still], self.rules.reach_lon_e7, self.rules.reach_lat_e7)
        self._used[SQUARE_COUNT] = len(held)

    def _mark_row(self, topic: int, partition: int) -> int:
        row = self._marks.setdefault((topic, partition), len(self._marks))
        if row == len(self._mark_ms):
            self._mark_ms = np.concatenate([self._mark_ms, np.full(row, NEVER, np.int64)])
            self._drained = np.concatenate([self._drained, np.zeros(row, np.bool_)])
        return row

    def _partition_rows(self, reports: LocatedReports) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Row of the mark, and number, of each report's source partition.

        An origin is told by that number: one device's copies may come from two topics, at one offset of each.
        """
        pairs, inverse = np.unique(
            reports.topic.astype(np.int64) << 32 | reports.partition.astype(np.int64), return_inverse=True
        )
        named = [(pair >> 32, pair & 0xFFFFFFFF) for pair in pairs.tolist()]
        numbers = np.array([self._partitions.setdefault(name, len(self._partitions)) for name in named], np.int32)
        marks = np.array([self._mark_row(*(0, 0) if self._one_clock else name) for name in named], np.int32)
        return marks[inverse], numbers[inverse]


def _keys_with(kept: npt.NDArray[np.void], count: int) -> npt.NDArray[np.void]:
    """A table of the kept keys with room for ``count`` more."""
    keys = np.zeros(_power_of_two(4 * (len(kept) + count)), KEY)
    place_keys(keys, kept)
    return keys


def _witnesses_with(kept: npt.NDArray[np.void], count: int) -> npt.NDArray[np.void]:
    """A table of the kept witnesses with room for ``count`` more."""
    witnesses = np.zeros(_power_of_two(4 * (len(kept) + count)), WITNESS)
    witnesses["incident"] = -1
    place_witnesses(witnesses, kept)
    return witnesses


def _power_of_two(least: int) -> int:
    return 1 << max(12, (least - 1).bit_length())
