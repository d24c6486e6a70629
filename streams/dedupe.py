"""The dedupe core: which incident a report speaks of, and how far its handling has come.

A sequential, deterministic fold over columns.  Near is an incident of the report's category group whose anchor lies
within ``radius_m`` of its category plus the capped accuracy of the vaguer of the two, or that has the report's asset.
Each near one that

1. it may join: the window (``last_report_at`` ± ``window_s``, longer at the same place) covers the event time, or it
   has ended (closed or rejected), but not before the event time;
2. or reopen: it ended at most ``reopen_s`` before the event time;

gets a score: the evidence that both are one event, in points, hundredths of a power of ten.  The best one is joined if
with its ``prior``, and less what rivals take, the score is not negative.  Else the report founds an incident; that is
the recurrence of the best one that ended earlier, or never ended and whose window did at most ``reopen_s`` before.

The anchor of an incident is its founding report, until one at most half as vague joins it.  A report that joined by
nearness alone goes, for as long as ``rethink_s``, with an incident founded later beside it that suits it better.

A report counts a witness of its incident, unless that one was heard of it before, and raises the incident's odds by his
(:mod:`.witnesses`).  Below its category's ``confirm_odds`` what a report founds, or reopens after it was rejected, is
suspected.

Of equal scores the nearer, then the smaller (``opened_at``, id).  An incident that has recurred is joined in its window
alone: after that its successor stands for the place.  Distances are whole centimetres and points whole numbers, so ties
are exact and the same on every machine.  Feedback moves an incident's status, in the order of the log.

The state is a few arrays: the incidents and the signatures of their texts; the loose reports; open-addressing tables
from (group, square of the plane) or an asset to incidents, from a report's key to where it went, from an incident's key
to the incident, and of the devices, assets and addresses that incidents have and of their witnesses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geo.plane import metres_per_degree
from streams.dedupe_kernels import (
    ASSET_COUNT,
    CORRECTED_COUNT,
    CORRECTION,
    FREE_LOOSE,
    ID_COUNT,
    INCIDENT,
    INCIDENT_COUNT,
    KEPT_SIGNATURES,
    KEY,
    KEY_COUNT,
    LOOSE,
    LOOSE_COUNT,
    MARK,
    MARK_COUNT,
    NEVER,
    PLACES,
    RECURRENCE_MS,
    RULE,
    SCALE_BITS,
    SQUARE,
    SQUARE_COUNT,
    STATUS_COUNTS,
    TERMS,
    TOLD_COUNT,
    WAITING_COUNT,
    WITNESS,
    WITNESS_COUNT,
    advance,
    decide,
    place_keys,
    place_marks,
    place_squares,
    place_witnesses,
    settle_loose,
)
from streams.feedback import CLOSED, COLUMNS, STATUSES, SUSPECTED, TRANSITION
from streams.reports import NO_POSITION, LocatedReports
from streams.signatures import WORDS, evidence
from streams.terms import Terms
from streams.witnesses import UNKNOWN_ODDS, odds_of_column, witness_keys


@dataclass(frozen=True, slots=True)
class DedupeRules:
    """Terms compiled to arrays.

    Attributes
    ----------
    of_category : record array
        Radius, window and so on of each category of the terms.
    similar : int32 array, shape (categories, categories)
        Points of a report of one category and an incident of the other.
    reach_lon_e7, reach_lat_e7 : int64 array
        Per group, half the side of its squares in 1e-7 degrees: no match of the group lies further apart than that
        anywhere in the city.
    """

    of_category: npt.NDArray[np.void]
    similar: npt.NDArray[np.int32]
    reach_lon_e7: npt.NDArray[np.int64]
    reach_lat_e7: npt.NDArray[np.int64]

    @classmethod
    def from_terms(cls, terms: Terms) -> DedupeRules:
        """The rules of some terms; those of the same terms grown later begin alike."""
        of_category = np.zeros(len(terms.categories), RULE)
        similar = np.zeros((len(terms.categories),) * 2, np.int32)
        numbers_of: dict[str, list[int]] = {}
        for number, category in enumerate(terms.categories):
            numbers_of.setdefault(category.code, []).append(number)
        for number, category in enumerate(terms.categories):
            match = category.match
            of_category[number] = (
                category.radius_cm, category.accuracy_cap_cm, category.window_ms, category.reopen_ms,
                match.same_place_cm, match.same_place_window_ms, match.spread_cm**2, match.decay_ms,
                match.same_place_decay_ms, match.rethink_ms,
                match.base, match.prior or 0, match.same_place, match.text_percent, match.busy_percent,
                match.rival_percent, match.gap_percent, match.rhythm_percent, match.rethink,
                match.sigmas, match.reopening, match.pairs, match.again,
                terms.groups[category.group], category.odds, category.confirm_odds, category.event, match.prior is None,
            )  # fmt: skip
            similar[:, number] = match.unrelated
            for code, points in ((category.code, 0), *match.related):
                similar[numbers_of.get(code, []), number] = points
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
        return cls(of_category, similar, reach_lon_e7, reach_lat_e7)


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
    same : int8
        What tells that they are at one place: its `NOT_THE_SAME` to `SAME_ADDRESS`.
    score : int32, terms : int32, shape (n, terms)
        Points of the incident that it joined, and what they are made of (its `TERMS`).
    distance_cm2 : int64
        Square of the distance to the incident's anchor; -1 where there was nothing to measure.
    gap_ms : int64
        From the incident's nearest report time known before, to this report's; -1 likewise.
    allowed_cm : int64
        The distance that would still have matched.
    behind_ms : int64
        How far the event time lay behind the watermark; negative when ahead of it.
    runner_up : int32
        Row of the second best incident, of the best where none was good enough, or -1; ``runner_up_cm2`` and
        ``runner_up_score`` as above.
    loose_at : int32
        The place that a report which joined by nearness alone has among the loose ones; -1 for all others.
    corrections : CORRECTION array
        Second thoughts about earlier reports.
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
    same: npt.NDArray[np.int8]
    score: npt.NDArray[np.int32]
    terms: npt.NDArray[np.int32]
    distance_cm2: npt.NDArray[np.int64]
    gap_ms: npt.NDArray[np.int64]
    allowed_cm: npt.NDArray[np.int64]
    behind_ms: npt.NDArray[np.int64]
    runner_up: npt.NDArray[np.int32]
    runner_up_cm2: npt.NDArray[np.int64]
    runner_up_score: npt.NDArray[np.int32]
    loose_at: npt.NDArray[np.int32]
    corrections: npt.NDArray[np.void]
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
        self._used[FREE_LOOSE] = -1
        self._signatures = np.zeros((1024, KEPT_SIGNATURES, WORDS), np.uint64)
        self._places, self._assets = _no_marks(4096), _no_marks(4096)
        self._loose = np.zeros(1024, LOOSE)
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
        self.rules = DedupeRules(
            np.zeros(0, RULE), np.zeros((0, 0), np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64)
        )

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
        room = 3 * count + len(feedback)  # each may be told at once, what it left, and its last state
        decided = Decided(
            np.zeros(count, np.int8),
            np.full(count, -1, np.int32),
            np.zeros(count, np.int8),
            np.full(count, -1, np.int32),
            np.zeros(count, np.int8),
            np.zeros(count, np.int32),
            np.zeros((count, len(TERMS)), np.int32),
            np.full(count, -1, np.int64),
            np.full(count, -1, np.int64),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.full(count, -1, np.int32),
            np.full(count, -1, np.int64),
            np.zeros(count, np.int32),
            np.full(count, -1, np.int32),
            np.zeros(count + int(self._used[WAITING_COUNT]), CORRECTION),
            np.zeros(room, INCIDENT),
            np.zeros(room, np.int64),
            np.zeros(room, np.int32),
            feedback,
        )
        rules = self.rules
        self._used[TOLD_COUNT] = self._used[CORRECTED_COUNT] = 0
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
            np.stack([reports.device_key, reports.asset_key, reports.address_key], axis=1),
            np.ascontiguousarray(reports.signature),
            reports.content,
            witness_keys(reports.source, reports.witness),
            odds_of_column(reports.confidence),
            feedback,
            TRANSITION,
            pack,
            self.batch,
            rules.of_category,
            rules.similar,
            _TEXT_POINTS,
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
            self._signatures,
            self._squares,
            self._keys,
            self._ids,
            self._places,
            self._assets,
            self._loose,
            self._witnesses,
            decided.outcome,
            decided.incident,
            decided.how,
            decided.judged_by,
            decided.same,
            decided.score,
            decided.terms,
            decided.distance_cm2,
            decided.gap_ms,
            decided.allowed_cm,
            decided.behind_ms,
            decided.runner_up,
            decided.runner_up_cm2,
            decided.runner_up_score,
            decided.loose_at,
            decided.corrections,
            decided.snapshots,
            decided.snapshot_at,
            decided.snapshot_incident,
        )
        decided.corrections = decided.corrections[: self._used[CORRECTED_COUNT]]
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
        used = used[self._is_anchor(used)]
        assert len(np.unique(used["incident"])) == len(used), "an incident's anchor stands in one square only"
        assert incidents["squared"].sum() == len(used), "and knows that it does"
        loose = self._loose[: self._used[LOOSE_COUNT]]
        chained = [at for head in incidents["loose"].tolist() for at in self._chain(head)]
        assert sorted(chained) == np.flatnonzero(loose["incident"] >= 0).tolist(), "loose reports stand in one chain"
        assert len(chained) == self._used[WAITING_COUNT], "and are counted"
        free = list(self._chain(int(self._used[FREE_LOOSE])))
        assert sorted([*chained, *free]) == list(range(len(loose))), "and all other places are free"
        for table, count in ((self._places, MARK_COUNT), (self._assets, ASSET_COUNT)):
            assert (table["incident"] >= 0).sum() == self._used[count], "marks used are counted"
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
        used = self._used
        if self.count + count > len(self.incidents):
            more = max(len(self.incidents), count)
            self.incidents = _grown(self.incidents, more)
            self._signatures = _grown(self._signatures, more)
        if used[WAITING_COUNT] + count > len(self._loose):
            settle_loose(self._clock[0], used, self.incidents, self._loose)
            if 2 * (used[WAITING_COUNT] + count) > len(self._loose):
                self._loose = _grown(self._loose, max(len(self._loose), count))
        may_change = count + int(used[WAITING_COUNT])
        # A report may found an incident, or be the better anchor of one; and so may one that has second thoughts.
        if 2 * (used[SQUARE_COUNT] + 2 * may_change) > len(self._squares):
            self._place_again(2 * may_change)
        if 2 * (used[KEY_COUNT] + count) > len(self._keys):
            horizon_ms = self._clock[0] - self._remember_ms
            remembered = self._keys[(self._keys["used"] == 1) & (self._keys["ingested_ms"] >= horizon_ms)]
            self._keys = _keys_with(remembered, count)
            used[KEY_COUNT] = len(remembered)
        if 2 * (used[ID_COUNT] + count) > len(self._ids):
            self._ids = _keys_with(self._ids[self._ids["used"] == 1], count)
        more = PLACES * may_change  # a report may bring a device, an asset and an address
        if 2 * (used[MARK_COUNT] + more) > len(self._places):
            self._places = _marks_with(self._places, more)
        if 2 * (used[ASSET_COUNT] + more) > len(self._assets):
            self._assets = _marks_with(self._assets, more)
        if 2 * (used[WITNESS_COUNT] + may_change) > len(self._witnesses):
            horizon_ms = self._clock[0] - self._remember_ms
            known = (self._witnesses["incident"] >= 0) & (self._witnesses["heard_ms"] >= horizon_ms)
            used[WITNESS_COUNT] = known.sum()
            self._witnesses = _witnesses_with(self._witnesses[known], may_change)

    def _place_again(self, count: int) -> None:
        """The table of squares anew, with room for ``count`` more, without what no report can come upon any more."""
        held = self._squares[self._squares["incident"] >= 0]
        held = held[self._is_anchor(held)]
        of = self.incidents[held["incident"]]
        rules = self.rules.of_category[of["category"]]
        window_ends_ms = of["last_ms"] + np.maximum(rules["window_ms"], rules["same_window_ms"])
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

    def _is_anchor(self, squares: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Which of some squares in use hold the place where their incident is anchored now."""
        of = self.incidents[squares["incident"]]
        here: npt.NDArray[np.bool_] = (
            of["squared"] & (of["lon_e7"] == squares["lon_e7"]) & (of["lat_e7"] == squares["lat_e7"])
        )
        return here

    def _chain(self, at: int) -> Iterator[int]:
        while at >= 0:
            yield at
            at = int(self._loose[at]["next"])

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


_TEXT_POINTS = evidence()


def _grown(array: npt.NDArray[Any], more: int) -> npt.NDArray[Any]:
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])


def _no_marks(size: int) -> npt.NDArray[np.void]:
    marks = np.zeros(size, MARK)
    marks["incident"] = -1
    return marks


def _marks_with(marks: npt.NDArray[np.void], count: int) -> npt.NDArray[np.void]:
    """A table of the same marks with room for ``count`` more."""
    held = marks[marks["incident"] >= 0]
    larger = _no_marks(_power_of_two(4 * (len(held) + count)))
    place_marks(larger, held)
    return larger


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
