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

The state is four arrays: the incidents; open-addressing tables from (group, square of the plane) to incidents, from a
report's key to where it went, and from an incident's key to the incident.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from geo.plane import metres_per_degree
from streams.feedback import (
    APPLIED,
    CLOSED,
    COLUMNS,
    ILLEGAL_TRANSITION,
    OPEN,
    REPEATED,
    STATUSES,
    TRANSITION,
    UNKNOWN_INCIDENT,
)
from streams.feedback import REDELIVERED as FEEDBACK_REDELIVERED
from streams.messages import SOURCES, Outcome
from streams.reports import NO_POSITION, LocatedReports
from streams.terms import Terms

OUTCOMES = (Outcome.OPENED, Outcome.JOINED, Outcome.REPEAT, Outcome.LATE, Outcome.REOPENED, Outcome.NOT_AN_EVENT)
"""The number of an outcome in columns is its place here."""
OPENED, JOINED, REPEAT, LATE, REOPENED, NOT_AN_EVENT = range(6)
REDELIVERED = 6
"""Not an outcome: the log delivered again what was applied; counted in a metric only."""

FOUNDED, IN_WINDOW, BEFORE_ITS_END, AFTER_ITS_END, RECURRENCE = range(5)
"""How a report and its incident came together: it founded one without a past; joined one in its window, or one that has
ended but not before the report's event time; reopened one; founded one that has a past."""

F = TypeVar("F")

NEVER = np.int64(-(2**62))
RECURRENCE_MS = 366 * 86_400_000
"""How long after `reopen_s` an ended incident is remembered for what recurs at its place."""
_SCALE_BITS = 24

INCIDENT = np.dtype(
    [
        ("key_hi", "u8"), ("key_lo", "u8"),
        ("opened_ms", "i8"), ("first_ms", "i8"), ("last_ms", "i8"), ("updated_ms", "i8"),
        ("ended_ms", "i8"),
        ("lon_e7", "i4"), ("lat_e7", "i4"), ("accuracy_cm", "i4"),
        ("category", "i4"), ("cell", "i4"), ("pack", "i4"),
        ("version", "i4"), ("report_count", "i4"), ("repeat_count", "i4"), ("by_source", "i4", (4,)),
        ("changed_in", "i4"), ("recurrence_of", "i4"), ("status", "i1"), ("superseded", "?"), ("squared", "?"),
    ]
)  # fmt: skip
"""One incident.

``ended_ms`` is the event time of the feedback that closed or rejected it, `NEVER` unless it is so.  ``changed_in`` is
the number of the batch that changed it last, negative once that was told.  ``superseded``: it has recurred.
``squared``: it stands in the table of squares.
"""

_RULE = np.dtype(
    [
        ("radius_cm", "i8"), ("accuracy_cap_cm", "i8"), ("window_ms", "i8"), ("reopen_ms", "i8"),
        ("group", "i4"), ("is_event", "?"),
    ]
)  # fmt: skip

_KEY = np.dtype(
    [
        ("hi", "u8"), ("lo", "u8"), ("used", "i4"), ("incident", "i4"), ("ingested_ms", "i8"),
        ("first_offset", "i8"), ("first_index", "i4"), ("first_partition", "i4"),
    ]
)  # fmt: skip
"""A report's key, where it came from first and when last; or a further origin of one, under a key made of both."""

_SQUARE = np.dtype([("tag", "u4"), ("incident", "i4"), ("lon_e7", "i4"), ("lat_e7", "i4")])

assert len(SOURCES) == 4, "by_source has a place for each source"


def _jit(function: F) -> F:
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
    return cast(F, compiled(function))


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
        of_category = np.zeros(len(terms.categories), _RULE)
        for number, category in enumerate(terms.categories):
            of_category[number] = (
                category.radius_cm, category.accuracy_cap_cm, category.window_ms, category.reopen_ms,
                terms.groups[category.group], category.event,
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
        Index into :data:`OUTCOMES`, or :data:`REDELIVERED`.
    incident : int32
        Row in :attr:`Dedupe.incidents`; -1 for none.
    how : int8
        How it and its incident came together: `FOUNDED` to `RECURRENCE` (also when it was late).
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
        Incidents as they stood when they must be told: at each opening, reopening, first report of a further source
        and feedback, and last in the batch.  ``snapshot_at`` is ``2 * row + 1`` for the report that caused it,
        ``2 * before`` for feedback; ``snapshot_incident`` the incident.
    feedback : `streams.feedback.COLUMNS` array
        The feedback with its results.
    """

    outcome: npt.NDArray[np.int8]
    incident: npt.NDArray[np.int32]
    how: npt.NDArray[np.int8]
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
    still join, reopen or recur, the ids within ``remember_s`` and the incidents.

    ``lateness_s``: how far behind the watermark a report may come without being late.  ``remember_s``: how long a
    message's id is remembered, the `too_old` limit.  With ``one_clock`` all source partitions share one mark, as in the
    replay of a recording, which is one stream.
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
        # How many incidents, squares, keys and ids are used; and told, of one batch; and incidents by status.
        self._used = np.zeros(_STATUSES + len(STATUSES), np.int64)
        self._squares = np.zeros(4096, _SQUARE)
        self._squares["incident"] = -1
        self._keys = np.zeros(4096, _KEY)
        self._ids = np.zeros(4096, _KEY)
        self._partitions: dict[tuple[int, int], int] = {}
        # Newest ingestion time and drained flag of each source partition heard of, and the watermark.
        self._marks: dict[tuple[int, int], int] = {}
        self._mark_ms = np.full(16, NEVER, np.int64)
        self._drained = np.zeros(16, np.bool_)
        self._clock = np.array([NEVER], np.int64)
        self.rules = DedupeRules(np.zeros(0, _RULE), np.zeros(0, np.int64), np.zeros(0, np.int64))

    @property
    def count(self) -> int:
        """How many incidents were ever founded here."""
        return int(self._used[_INCIDENTS])

    @property
    def by_status(self) -> list[int]:
        """How many incidents stand at each of `streams.feedback.STATUSES`."""
        counts: list[int] = self._used[_STATUSES:].tolist()
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
        _advance(self._mark_ms, self._drained, len(self._marks), self._clock)

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
        scale = np.rint(np.array(metres_per_degree(lat_deg)) * 1e-5 * (1 << _SCALE_BITS)).astype(np.int64)
        mark_rows, partitions = self._partition_rows(reports)
        room = 2 * count + len(feedback)
        decided = Decided(
            np.zeros(count, np.int8),
            np.full(count, -1, np.int32),
            np.zeros(count, np.int8),
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
        self._used[_TOLD] = 0
        _decide(
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
            feedback,
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
            decided.outcome,
            decided.incident,
            decided.how,
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
        told = int(self._used[_TOLD])
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
        assert len(used) == self._used[_SQUARES], "squares used are counted"
        assert len(np.unique(used["incident"])) == len(used), "an incident stands in one square only"
        assert incidents["squared"].sum() == len(used), "and knows that it does"
        assert (incidents["lon_e7"][used["incident"]] == used["lon_e7"]).all(), "squares repeat the founding position"
        keys = self._keys[self._keys["used"] == 1]
        assert len(keys) == self._used[_KEYS], "keys used are counted"
        assert (keys["incident"] < self.count).all(), "keys lead to incidents that are there"
        ids = self._ids[self._ids["used"] == 1]
        assert len(ids) == self._used[_IDS] == self.count, "every incident has an id of its own"

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
        if self._used[_SQUARES] and not (
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
        if 2 * (self._used[_SQUARES] + count) > len(self._squares):
            self._place_again(count)
        if 2 * (self._used[_KEYS] + count) > len(self._keys):
            horizon_ms = self._clock[0] - self._remember_ms
            remembered = self._keys[(self._keys["used"] == 1) & (self._keys["ingested_ms"] >= horizon_ms)]
            self._keys = _keys_with(remembered, count)
            self._used[_KEYS] = len(remembered)
        if 2 * (self._used[_IDS] + count) > len(self._ids):
            self._ids = _keys_with(self._ids[self._ids["used"] == 1], count)

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
        self._squares = np.zeros(_power_of_two(4 * (len(held) + count)), _SQUARE)
        self._squares["incident"] = -1
        _place_squares(self._squares, held, rules["group"][still], self.rules.reach_lon_e7, self.rules.reach_lat_e7)
        self._used[_SQUARES] = len(held)

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


_INCIDENTS, _SQUARES, _KEYS, _IDS, _TOLD, _STATUSES = range(6)


def _keys_with(kept: npt.NDArray[np.void], count: int) -> npt.NDArray[np.void]:
    """A table of the kept keys with room for ``count`` more."""
    keys = np.zeros(_power_of_two(4 * (len(kept) + count)), _KEY)
    _place_keys(keys, kept)
    return keys


def _power_of_two(least: int) -> int:
    return 1 << max(12, (least - 1).bit_length())


# ------------------------------------------------------------------------------------------------------- kernels


@_jit
def _advance(mark_ms: Any, drained: Any, marks: Any, clock: Any) -> None:
    """The watermark: the minimum over the source partitions not drained, else the maximum; never back."""
    low = np.int64(2**62)
    high = NEVER
    for row in range(marks):
        if mark_ms[row] > high:
            high = mark_ms[row]
        # A partition that a later report of the batch comes from has not been heard of yet.
        if not drained[row] and NEVER < mark_ms[row] < low:
            low = mark_ms[row]
    now = high if low == np.int64(2**62) else low
    if now > clock[0]:
        clock[0] = now


@_jit
def _mixed(a: Any) -> Any:
    a ^= a >> np.uint64(33)
    a *= np.uint64(0xFF51AFD7ED558CCD)
    a ^= a >> np.uint64(33)
    a *= np.uint64(0xC4CEB9FE1A85EC53)
    a ^= a >> np.uint64(33)
    return a


@_jit
def _square_hash(group: Any, column: Any, row: Any) -> Any:
    # Columns and rows may be negative (west, south); their low 24 bits suffice, for what collides is compared exactly.
    mask = np.int64(0xFFFFFF)
    packed = (np.int64(group) << 48) ^ ((np.int64(column) & mask) << 24) ^ (np.int64(row) & mask)
    return _mixed(np.uint64(packed))


@_jit
def _place_square(squares: Any, group: Any, side_lon: Any, side_lat: Any, lon: Any, lat: Any, incident: Any) -> None:
    hashed = _square_hash(group, lon // side_lon, lat // side_lat)
    mask = len(squares) - 1
    at = np.int64(hashed & np.uint64(mask))
    while squares[at].incident >= 0:
        at = (at + 1) & mask
    squares[at].tag = np.uint32(hashed >> np.uint64(32))
    squares[at].incident = incident
    squares[at].lon_e7 = lon
    squares[at].lat_e7 = lat


@_jit
def _place_squares(squares: Any, held: Any, group: Any, reach_lon: Any, reach_lat: Any) -> None:
    for i in range(len(held)):
        of = np.int64(group[i])
        _place_square(
            squares, of, 2 * reach_lon[of], 2 * reach_lat[of],
            np.int64(held[i].lon_e7), np.int64(held[i].lat_e7), np.int64(held[i].incident),
        )  # fmt: skip


@_jit
def _find_key(keys: Any, hi: Any, lo: Any) -> Any:
    """Where the key stands, or the free place where it would."""
    mask = len(keys) - 1
    at = np.int64(lo & np.uint64(mask))
    while keys[at].used == 1 and (keys[at].hi != hi or keys[at].lo != lo):
        at = (at + 1) & mask
    return at


@_jit
def _place_keys(keys: Any, remembered: Any) -> None:
    for i in range(len(remembered)):
        keys[_find_key(keys, remembered[i].hi, remembered[i].lo)] = remembered[i]


@_jit
def _salted(hi: Any, group: Any) -> Any:
    """A key's first half within its group: groups share a table but not each other's keys."""
    return hi ^ _mixed(np.uint64(group + 1))


@_jit
def _at_origin(hi: Any, lo: Any, partition: Any, offset: Any, index: Any) -> Any:
    """The key of what has that key and came from there."""
    salt = np.uint64(0x9E3779B97F4A7C15)
    place = (np.uint64(partition) << np.uint64(32)) ^ np.uint64(index)
    return hi ^ _mixed(np.uint64(offset) + salt), lo ^ _mixed(place + salt)


@_jit
def _apply_feedback(
    one: Any, at: Any, batch: Any, now: Any, remember_ms: Any, reach_lon: Any, reach_lat: Any, used: Any,
    incidents: Any, squares: Any, keys: Any, ids: Any, snapshots: Any, snapshot_at: Any, snapshot_incident: Any,
) -> None:  # fmt: skip
    one.incident = -1
    # Known by its origin too: what was refused must stay so when the log delivers it again, be it legal by then.
    horizon = max(now, one.ingested_ms) - remember_ms
    hi, lo = _at_origin(one.id_hi, one.id_lo, one.partition, one.offset, one.index)
    key = _find_key(keys, hi, lo)
    if keys[key].used == 1 and keys[key].ingested_ms >= horizon:
        one.result = FEEDBACK_REDELIVERED
        return
    if keys[key].used == 0:
        used[_KEYS] += 1
    _write_key(keys, key, hi, lo, -1, one.ingested_ms, one.partition, one.offset, one.index)
    if one.group < 0:
        one.result = UNKNOWN_INCIDENT
        return
    found = _find_key(ids, _salted(one.incident_hi, one.group), one.incident_lo)
    if ids[found].used == 0:
        one.result = UNKNOWN_INCIDENT
        return
    number = np.int64(ids[found].incident)
    one.incident = number
    one.status = incidents[number].status
    key = _find_key(keys, one.id_hi, one.id_lo)
    if keys[key].used == 1 and keys[key].ingested_ms >= horizon:
        one.result = REPEATED
        return
    status = TRANSITION[one.status, one.action]
    if status < 0:
        one.result = ILLEGAL_TRANSITION
        return
    one.result = APPLIED
    used[_STATUSES + incidents[number].status] -= 1
    used[_STATUSES + status] += 1
    if keys[key].used == 0:
        used[_KEYS] += 1
    _write_key(keys, key, one.id_hi, one.id_lo, number, one.ingested_ms, one.partition, one.offset, one.index)
    incidents[number].status = status
    incidents[number].ended_ms = one.time_ms if status >= CLOSED else NEVER
    incidents[number].version += 1
    incidents[number].updated_ms = one.ingested_ms
    if not incidents[number].squared and incidents[number].lon_e7 != NO_POSITION:
        # Dropped long ago, and what is said of it now may make it match once more.
        group = one.group
        _place_square(
            squares, group, 2 * reach_lon[group], 2 * reach_lat[group],
            np.int64(incidents[number].lon_e7), np.int64(incidents[number].lat_e7), number,
        )  # fmt: skip
        incidents[number].squared = True
        used[_SQUARES] += 1
    _tell(number, at, batch, used, incidents, snapshots, snapshot_at, snapshot_incident)


@_jit
def _write_key(
    keys: Any, at: Any, hi: Any, lo: Any, incident: Any, ingested: Any, partition: Any, offset: Any, index: Any
) -> None:
    keys[at].used = 1
    keys[at].hi = hi
    keys[at].lo = lo
    keys[at].incident = incident
    keys[at].ingested_ms = ingested
    keys[at].first_partition = partition
    keys[at].first_offset = offset
    keys[at].first_index = index


@_jit
def _tell(
    number: Any,
    at: Any,
    batch: Any,
    used: Any,
    incidents: Any,
    snapshots: Any,
    snapshot_at: Any,
    snapshot_incident: Any,
) -> None:  # fmt: skip
    told = used[_TOLD]
    incidents[number].changed_in = -batch
    snapshots[told] = incidents[number]
    snapshot_at[told] = at
    snapshot_incident[told] = number
    used[_TOLD] = told + 1


@_jit
def _decide(
    count: Any,
    source: Any,
    partition: Any,
    offset: Any,
    index: Any,
    mark: Any,
    ingested: Any,
    time: Any,
    lon: Any,
    lat: Any,
    lon_scale: Any,
    lat_scale: Any,
    accuracy: Any,
    category: Any,
    cell: Any,
    key_hi: Any,
    key_lo: Any,
    feedback: Any,
    pack: Any,
    batch: Any,
    rules: Any,
    reach_lon: Any,
    reach_lat: Any,
    lateness_ms: Any,
    remember_ms: Any,
    mark_rows: Any,
    marks: Any,
    mark_ms: Any,
    drained: Any,
    clock: Any,
    used: Any,
    incidents: Any,
    squares: Any,
    keys: Any,
    ids: Any,
    outcome: Any,
    assigned: Any,
    how: Any,
    distance_cm2: Any,
    gap_ms: Any,
    allowed_cm: Any,
    behind_ms: Any,
    runner_up: Any,
    runner_up_cm2: Any,
    runner_up_allowed: Any,
    snapshots: Any,
    snapshot_at: Any,
    snapshot_incident: Any,
) -> None:
    half = np.int64(1) << (_SCALE_BITS - 1)
    mask = len(squares) - 1
    heard = 0
    for i in range(count + 1):
        while heard < len(feedback) and (i == count or feedback[heard].before <= i):
            _apply_feedback(
                feedback[heard], 2 * feedback[heard].before, batch, clock[0], remember_ms, reach_lon, reach_lat, used,
                incidents, squares, keys, ids, snapshots, snapshot_at, snapshot_incident,
            )  # fmt: skip
            heard += 1
        if i == count:
            break
        row = mark_rows[i]
        if mark[i] > mark_ms[row] or drained[row]:
            mark_ms[row] = max(mark_ms[row], mark[i])
            drained[row] = False
            _advance(mark_ms, drained, marks, clock)
        now = clock[0]
        kind = np.int64(category[i])
        group = np.int64(rules[kind].group)
        behind_ms[i] = now - time[i]
        is_late = time[i] < now - lateness_ms

        # The same id again?
        hi = _salted(key_hi[i], group)
        at = _find_key(keys, hi, key_lo[i])
        known = keys[at].used == 1
        if known and keys[at].ingested_ms >= now - remember_ms:
            assigned[i] = keys[at].incident
            if (
                keys[at].first_partition == partition[i]
                and keys[at].first_offset == offset[i]
                and keys[at].first_index == index[i]
            ):
                outcome[i] = REDELIVERED
                continue
            origin_hi, origin_lo = _at_origin(hi, key_lo[i], partition[i], offset[i], index[i])
            origin_at = _find_key(keys, origin_hi, origin_lo)
            if keys[origin_at].used == 1 and keys[origin_at].ingested_ms >= now - remember_ms:
                outcome[i] = REDELIVERED
                continue
            if keys[origin_at].used == 0:
                used[_KEYS] += 1
            _write_key(
                keys, origin_at, origin_hi, origin_lo, keys[at].incident, ingested[i], partition[i], offset[i], index[i]
            )
            # From its last coming on, so that whoever remembers a further origin remembers the report.
            keys[at].ingested_ms = max(keys[at].ingested_ms, ingested[i])
            outcome[i] = REPEAT
            if keys[at].incident >= 0:
                incidents[keys[at].incident].repeat_count += 1
                incidents[keys[at].incident].changed_in = batch
            continue
        if not known:
            used[_KEYS] += 1
        _write_key(keys, at, hi, key_lo[i], -1, ingested[i], partition[i], offset[i], index[i])

        if not rules[kind].is_event:
            outcome[i] = NOT_AN_EVENT
            continue

        best = np.int64(-1)
        best_cm2 = np.int64(0)
        best_how = np.int64(FOUNDED)
        runner_up_how = np.int64(FOUNDED)
        if lon[i] != NO_POSITION:
            x = np.int64(lon[i])
            y = np.int64(lat[i])
            side_x = 2 * reach_lon[group]
            side_y = 2 * reach_lat[group]
            for column in range((x - reach_lon[group]) // side_x, (x + reach_lon[group]) // side_x + 1):
                for line in range((y - reach_lat[group]) // side_y, (y + reach_lat[group]) // side_y + 1):
                    hashed = _square_hash(group, column, line)
                    tag = np.uint32(hashed >> np.uint64(32))
                    slot = np.int64(hashed & np.uint64(mask))
                    while squares[slot].incident >= 0:
                        if squares[slot].tag == tag:
                            dx = ((np.int64(squares[slot].lon_e7) - x) * lon_scale[i] + half) >> _SCALE_BITS
                            dy = ((np.int64(squares[slot].lat_e7) - y) * lat_scale[i] + half) >> _SCALE_BITS
                            cm2 = dx * dx + dy * dy
                            other = np.int64(squares[slot].incident)
                            of = rules[incidents[other].category]
                            reach = of.radius_cm + min(np.int64(accuracy[i]), of.accuracy_cap_cm)
                            # Two squares may share a hash, and then come upon the same incident twice.
                            if cm2 <= reach * reach and of.group == group and other != best:
                                this = _how(incidents[other], of, time[i], now - lateness_ms)
                                if this == FOUNDED:
                                    pass
                                elif best < 0 or _comes_before(incidents, this, cm2, other, best_how, best_cm2, best):
                                    if best >= 0 and best_how < RECURRENCE:
                                        runner_up[i] = best
                                        runner_up_cm2[i] = best_cm2
                                        runner_up_allowed[i] = allowed_cm[i]
                                        runner_up_how = best_how
                                    best = other
                                    best_cm2 = cm2
                                    best_how = this
                                    allowed_cm[i] = reach
                                elif this < RECURRENCE and (
                                    runner_up[i] < 0
                                    or _comes_before(
                                        incidents, this, cm2, other, runner_up_how, runner_up_cm2[i],
                                        np.int64(runner_up[i]),
                                    )
                                ):  # fmt: skip
                                    runner_up[i] = other
                                    runner_up_cm2[i] = cm2
                                    runner_up_allowed[i] = reach
                                    runner_up_how = this
                        slot = (slot + 1) & mask

        is_told = False
        if best >= 0 and best_how < RECURRENCE:
            how[i] = best_how
            distance_cm2[i] = best_cm2
            gap_ms[i] = abs(time[i] - incidents[best].last_ms)
            outcome[i] = JOINED
            if best_how == AFTER_ITS_END:
                outcome[i] = REOPENED
                is_told = True
                used[_STATUSES + incidents[best].status] -= 1
                used[_STATUSES + OPEN] += 1
                incidents[best].status = OPEN
                incidents[best].ended_ms = NEVER
        else:
            outcome[i] = OPENED
            past = best
            best = used[_INCIDENTS]
            used[_INCIDENTS] += 1
            used[_STATUSES + OPEN] += 1
            # The same report after its id was forgotten founds another incident, which needs an id of its own.
            lo = key_lo[i]
            id_at = _find_key(ids, hi, lo)
            while ids[id_at].used == 1:
                lo = _mixed(lo + np.uint64(1))
                id_at = _find_key(ids, hi, lo)
            _write_key(ids, id_at, hi, lo, best, np.int64(0), 0, np.int64(0), 0)
            used[_IDS] += 1
            incidents[best].key_hi = key_hi[i]
            incidents[best].key_lo = lo
            incidents[best].opened_ms = time[i]
            incidents[best].first_ms = time[i]
            incidents[best].last_ms = time[i]
            incidents[best].ended_ms = NEVER
            incidents[best].lon_e7 = lon[i]
            incidents[best].lat_e7 = lat[i]
            incidents[best].accuracy_cm = accuracy[i]
            incidents[best].category = category[i]
            incidents[best].cell = cell[i]
            incidents[best].pack = pack
            incidents[best].recurrence_of = past
            allowed_cm[i] = rules[kind].radius_cm + min(np.int64(accuracy[i]), rules[kind].accuracy_cap_cm)
            if past >= 0:
                how[i] = RECURRENCE
                incidents[past].superseded = True
            if lon[i] != NO_POSITION:
                _place_square(
                    squares, group, 2 * reach_lon[group], 2 * reach_lat[group], np.int64(lon[i]), np.int64(lat[i]), best
                )
                incidents[best].squared = True
                used[_SQUARES] += 1
        if is_late:
            outcome[i] = LATE
        keys[at].incident = best
        assigned[i] = best
        is_told |= incidents[best].by_source[source[i]] == 0  # an opening, or a further source
        incidents[best].by_source[source[i]] += 1
        incidents[best].report_count += 1
        incidents[best].version += 1
        incidents[best].changed_in = batch
        incidents[best].first_ms = min(incidents[best].first_ms, time[i])
        incidents[best].last_ms = max(incidents[best].last_ms, time[i])
        incidents[best].updated_ms = ingested[i]
        if is_told:
            _tell(best, 2 * i + 1, batch, used, incidents, snapshots, snapshot_at, snapshot_incident)

    # The last state of whatever changed, unless just that was told already.
    for i in range(count - 1, -1, -1):
        if assigned[i] >= 0 and incidents[assigned[i]].changed_in == batch and outcome[i] != REDELIVERED:
            _tell(np.int64(assigned[i]), 2 * i + 1, batch, used, incidents, snapshots, snapshot_at, snapshot_incident)


@_jit
def _how(incident: Any, rule: Any, time: Any, held_from: Any) -> Any:
    """How a report of that event time, near the incident, comes together with it; `FOUNDED` if not at all."""
    window_end = incident.last_ms + rule.window_ms
    has_ended = incident.ended_ms != NEVER
    if has_ended and time > incident.ended_ms:
        until = incident.ended_ms + rule.reopen_ms
        if incident.superseded or until + RECURRENCE_MS < max(time, held_from):
            return FOUNDED
        return AFTER_ITS_END if time <= until else RECURRENCE
    # What has ended is held to its end, if that comes after its window's, unless its successor stands for it then.
    held_until = max(window_end, incident.ended_ms) if not incident.superseded else window_end
    if incident.last_ms - rule.window_ms <= time <= held_until and held_until >= held_from:
        return BEFORE_ITS_END if has_ended else IN_WINDOW
    until = window_end + rule.reopen_ms
    if has_ended or incident.superseded or not window_end < time <= until or until < held_from:
        return FOUNDED
    return RECURRENCE


@_jit
def _comes_before(incidents: Any, how: Any, cm2: Any, one: Any, other_how: Any, other_cm2: Any, other: Any) -> Any:
    """To be joined or reopened before to recur; then nearest first, then the smaller (opened_at, id)."""
    if max(how, AFTER_ITS_END) != max(other_how, AFTER_ITS_END):
        return how < other_how
    if cm2 != other_cm2:
        return cm2 < other_cm2
    if incidents[one].opened_ms != incidents[other].opened_ms:
        return incidents[one].opened_ms < incidents[other].opened_ms
    if incidents[one].key_hi != incidents[other].key_hi:
        return incidents[one].key_hi < incidents[other].key_hi
    return incidents[one].key_lo < incidents[other].key_lo
