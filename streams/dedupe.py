"""The dedupe core: which open incident a report speaks of.

A sequential, deterministic fold over columns.  A report joins the nearest incident of its category group that lies
within ``radius_m`` of the incident's category plus the report's capped accuracy, and whose window
(``last_report_at`` ± ``window_s``) covers the report's event time; ties go to the smaller (``opened_at``, id).
Otherwise it founds an incident.  Distances are whole centimetres from the founding position, so ties are exact and
the same on every machine.

The state is three arrays: the incidents; an open-addressing table from (group, square of the plane) to incidents; an
open-addressing table from a report's key to where it went.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from geo.plane import metres_per_degree
from streams.messages import SOURCES, Outcome
from streams.pack import CityPack
from streams.reports import NO_POSITION, LocatedReports

OUTCOMES = (Outcome.OPENED, Outcome.JOINED, Outcome.REPEAT, Outcome.LATE, Outcome.REOPENED, Outcome.NOT_AN_EVENT)
"""The number of an outcome in columns is its place here."""
OPENED, JOINED, REPEAT, LATE, _REOPENED, NOT_AN_EVENT = range(6)
REDELIVERED = 6
"""Not an outcome: the log delivered again what was applied; counted in a metric only."""

F = TypeVar("F")

NEVER = np.int64(-(2**62))
_SCALE_BITS = 24

INCIDENT = np.dtype(
    [
        ("key_hi", "u8"), ("key_lo", "u8"),
        ("opened_ms", "i8"), ("first_ms", "i8"), ("last_ms", "i8"), ("updated_ms", "i8"),
        ("lon_e7", "i4"), ("lat_e7", "i4"), ("accuracy_cm", "i4"),
        ("category", "i4"), ("cell", "i4"), ("pack", "i4"),
        ("version", "i4"), ("report_count", "i4"), ("repeat_count", "i4"), ("by_source", "i4", (4,)),
        ("changed_in", "i4"),
    ]
)  # fmt: skip
"""One incident.  ``changed_in`` is the number of the batch that changed it last."""

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
    """The catalogue compiled to arrays; ``radius_cm[i]`` is that of category ``i`` of the pack.

    ``reach_lon_e7``, ``reach_lat_e7``: per group, half the side of its squares in 1e-7 degrees: no match of the group
    lies further apart than that anywhere in the city.
    """

    group: npt.NDArray[np.int32]
    radius_cm: npt.NDArray[np.int64]
    accuracy_cap_cm: npt.NDArray[np.int64]
    window_ms: npt.NDArray[np.int64]
    is_event: npt.NDArray[np.bool_]
    reach_lon_e7: npt.NDArray[np.int64]
    reach_lat_e7: npt.NDArray[np.int64]
    lateness_ms: int
    remember_ms: int

    @classmethod
    def from_pack(cls, pack: CityPack, *, lateness_s: int = 600, remember_s: int = 30 * 86_400) -> DedupeRules:
        """The rules of a pack.

        ``lateness_s``: how far behind the watermark a report may come without being late.  ``remember_s``: how long a
        report's id is remembered, the `too_old` limit.
        """
        group_number = {group: number for number, group in enumerate(pack.groups)}
        group = np.array([group_number[category.group] for category in pack.categories], np.int32)
        radius_cm = np.rint([category.radius_m * 100 for category in pack.categories]).astype(np.int64)
        cap_cm = np.rint([category.accuracy_cap_m * 100 for category in pack.categories]).astype(np.int64)
        window_ms = np.rint([category.window_s * 1000 for category in pack.categories]).astype(np.int64)
        reach_cm = np.zeros(len(pack.groups), np.int64)
        np.maximum.at(reach_cm, group, radius_cm + cap_cm)
        # Where a degree is shortest in the city, the reach spans most of it.
        _, south, _, north = pack.grid.bounds
        cm_per_e7 = (
            np.array([metres_per_degree(lat) for lat in (south, north, 0.0 if south < 0 < north else south)]) * 1e-5
        )
        lon_cm, lat_cm = cm_per_e7.min(axis=0)
        # A centimetre and two units more than the quotient: squares must never be narrower than a match, and a distance
        # is rounded to centimetres, of which a unit of longitude is a small part in the far north.
        reach_lon_e7 = np.ceil((reach_cm + 1) / lon_cm).astype(np.int64) + 2
        reach_lat_e7 = np.ceil((reach_cm + 1) / lat_cm).astype(np.int64) + 2
        return cls(
            group,
            radius_cm,
            cap_cm,
            window_ms,
            np.array([category.event for category in pack.categories], np.bool_),
            reach_lon_e7,
            reach_lat_e7,
            lateness_s * 1000,
            remember_s * 1000,
        )


@dataclass(slots=True)
class Decided:
    """What the core decided, a row a report.

    Attributes
    ----------
    outcome : int8
        Index into :data:`OUTCOMES`, or :data:`REDELIVERED`.
    incident : int32
        Row in :attr:`Dedupe.incidents`; -1 for none.
    matched : bool
        Whether it joined an incident that was there (also when it was late).
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
        Incidents as they stood when they must be told: at each opening, each first report of a further source, and
        last in the batch.  ``snapshot_row`` is the row that caused it, ``snapshot_incident`` the incident.
    """

    outcome: npt.NDArray[np.int8]
    incident: npt.NDArray[np.int32]
    matched: npt.NDArray[np.bool_]
    distance_cm2: npt.NDArray[np.int64]
    gap_ms: npt.NDArray[np.int64]
    allowed_cm: npt.NDArray[np.int64]
    behind_ms: npt.NDArray[np.int64]
    runner_up: npt.NDArray[np.int32]
    runner_up_cm2: npt.NDArray[np.int64]
    runner_up_allowed_cm: npt.NDArray[np.int64]
    snapshots: npt.NDArray[np.void]
    snapshot_row: npt.NDArray[np.int32]
    snapshot_incident: npt.NDArray[np.int32]


class Dedupe:
    """The state of one shard's fold.

    ``incidents[:count]`` are all incidents ever founded here, in order of founding.  The tables double when half full;
    before they do, what can match no more is dropped from them, so they are bounded by the incidents within their
    window and the report ids within ``remember_ms``.  With ``one_clock`` all source partitions share one mark, as in
    the replay of a recording, which is one stream.
    """

    def __init__(self, rules: DedupeRules, *, one_clock: bool = False) -> None:
        self.rules = rules
        self._one_clock = one_clock
        self.incidents = np.zeros(1024, INCIDENT)
        self.count = 0
        self.batch = 0
        self._squares = np.zeros(4096, _SQUARE)
        self._squares["incident"] = -1
        self._squares_used = 0
        self._keys = np.zeros(4096, _KEY)
        self._keys_used = 0
        # Newest ingestion time and drained flag of each source partition heard of, and the watermark.
        self._marks: dict[tuple[int, int], int] = {}
        self._mark_ms = np.full(16, NEVER, np.int64)
        self._drained = np.zeros(16, np.bool_)
        self._clock = np.array([NEVER], np.int64)

    @property
    def watermark_ms(self) -> int | None:
        """The shard's watermark, Unix ms; None before anything was heard."""
        return None if self._clock[0] == NEVER else int(self._clock[0])

    def mark(self, source: int, partition: int, newest_ms: int, drained: bool) -> None:
        """A source partition was read up to ``newest_ms`` and, if ``drained``, holds nothing more."""
        row = self._mark_row(source, partition)
        self._mark_ms[row] = max(int(self._mark_ms[row]), newest_ms)
        self._drained[row] = drained
        _advance(self._mark_ms, self._drained, len(self._marks), self._clock)

    def apply(self, reports: LocatedReports, pack: int = 0) -> Decided:
        """Decide on each report in order and change the state.

        ``pack`` is the number to stamp on incidents founded here.
        """
        count = len(reports)
        self._reserve(count)
        self.batch += 1
        lat_deg = np.where(reports.lat_e7 == NO_POSITION, 0, reports.lat_e7) * 1e-7
        scale = np.rint(np.array(metres_per_degree(lat_deg)) * 1e-5 * (1 << _SCALE_BITS)).astype(np.int64)
        mark_rows = self._mark_rows(reports)
        decided = Decided(
            np.zeros(count, np.int8),
            np.full(count, -1, np.int32),
            np.zeros(count, np.bool_),
            np.full(count, -1, np.int64),
            np.full(count, -1, np.int64),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.full(count, -1, np.int32),
            np.full(count, -1, np.int64),
            np.zeros(count, np.int64),
            np.zeros(2 * count, INCIDENT),
            np.zeros(2 * count, np.int32),
            np.zeros(2 * count, np.int32),
        )
        rules = self.rules
        self.count, snapshots, self._squares_used, self._keys_used = _decide(
            count,
            reports.source,
            reports.partition,
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
            pack,
            self.batch,
            rules.group,
            rules.radius_cm,
            rules.accuracy_cap_cm,
            rules.window_ms,
            rules.is_event,
            rules.reach_lon_e7,
            rules.reach_lat_e7,
            rules.lateness_ms,
            rules.remember_ms,
            mark_rows,
            len(self._marks),
            self._mark_ms,
            self._drained,
            self._clock,
            self.incidents,
            self.count,
            self._squares,
            self._squares_used,
            self._keys,
            self._keys_used,
            decided.outcome,
            decided.incident,
            decided.matched,
            decided.distance_cm2,
            decided.gap_ms,
            decided.allowed_cm,
            decided.behind_ms,
            decided.runner_up,
            decided.runner_up_cm2,
            decided.runner_up_allowed_cm,
            decided.snapshots,
            decided.snapshot_row,
            decided.snapshot_incident,
        )
        decided.snapshots = decided.snapshots[:snapshots]
        decided.snapshot_row = decided.snapshot_row[:snapshots]
        decided.snapshot_incident = decided.snapshot_incident[:snapshots]
        return decided

    def check(self) -> None:
        """Assert every invariant of the state; for tests."""
        incidents = self.incidents[: self.count]
        assert (incidents["report_count"] == incidents["by_source"].sum(axis=1)).all(), "counts by source add up"
        assert (incidents["version"] == incidents["report_count"]).all(), "each report raised the version by one"
        assert (incidents["first_ms"] <= incidents["opened_ms"]).all(), "none was opened before its first report"
        assert (incidents["opened_ms"] <= incidents["last_ms"]).all(), "none was opened after its last report"
        used = self._squares[self._squares["incident"] >= 0]
        assert len(used) == self._squares_used, "squares used are counted"
        assert len(np.unique(used["incident"])) == len(used), "an incident stands in one square only"
        assert (incidents["lon_e7"][used["incident"]] == used["lon_e7"]).all(), "squares repeat the founding position"
        keys = self._keys[self._keys["used"] == 1]
        assert len(keys) == self._keys_used, "keys used are counted"
        assert (keys["incident"] < self.count).all(), "keys lead to incidents that are there"

    def _reserve(self, count: int) -> None:
        """Room for ``count`` more of everything, so that the kernel never grows anything itself."""
        if self.count + count > len(self.incidents):
            grown = np.zeros(max(2 * len(self.incidents), self.count + count), INCIDENT)
            grown[: self.count] = self.incidents[: self.count]
            self.incidents = grown
        if 2 * (self._squares_used + count) > len(self._squares):
            held = self._squares[self._squares["incident"] >= 0]
            category = self.incidents["category"][held["incident"]]
            ends_ms = self.incidents["last_ms"][held["incident"]] + self.rules.window_ms[category]
            still = ends_ms >= self._clock[0] - self.rules.lateness_ms
            held, group = held[still], self.rules.group[category[still]]
            self._squares = np.zeros(_power_of_two(4 * (len(held) + count)), _SQUARE)
            self._squares["incident"] = -1
            _place_squares(self._squares, held, group, self.rules.reach_lon_e7, self.rules.reach_lat_e7)
            self._squares_used = len(held)
        if 2 * (self._keys_used + count) > len(self._keys):
            horizon_ms = self._clock[0] - self.rules.remember_ms
            remembered = self._keys[(self._keys["used"] == 1) & (self._keys["ingested_ms"] >= horizon_ms)]
            self._keys = np.zeros(_power_of_two(4 * (len(remembered) + count)), _KEY)
            _place_keys(self._keys, remembered)
            self._keys_used = len(remembered)

    def _mark_row(self, source: int, partition: int) -> int:
        row = self._marks.setdefault((source, partition), len(self._marks))
        if row == len(self._mark_ms):
            self._mark_ms = np.concatenate([self._mark_ms, np.full(row, NEVER, np.int64)])
            self._drained = np.concatenate([self._drained, np.zeros(row, np.bool_)])
        return row

    def _mark_rows(self, reports: LocatedReports) -> npt.NDArray[np.int32]:
        if self._one_clock:
            return np.full(len(reports), self._mark_row(0, 0), np.int32)
        pairs, inverse = np.unique(
            reports.source.astype(np.int64) << 32 | reports.partition.astype(np.int64), return_inverse=True
        )
        rows = [self._mark_row(pair >> 32, pair & 0xFFFFFFFF) for pair in pairs.tolist()]
        return np.asarray(rows, np.int32)[inverse] if rows else np.zeros(0, np.int32)


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
    pack: Any,
    batch: Any,
    group_of: Any,
    radius_cm: Any,
    cap_cm: Any,
    window_ms: Any,
    is_event: Any,
    reach_lon: Any,
    reach_lat: Any,
    lateness_ms: Any,
    remember_ms: Any,
    mark_rows: Any,
    marks: Any,
    mark_ms: Any,
    drained: Any,
    clock: Any,
    incidents: Any,
    founded: Any,
    squares: Any,
    squares_used: Any,
    keys: Any,
    keys_used: Any,
    outcome: Any,
    assigned: Any,
    matched: Any,
    distance_cm2: Any,
    gap_ms: Any,
    allowed_cm: Any,
    behind_ms: Any,
    runner_up: Any,
    runner_up_cm2: Any,
    runner_up_allowed: Any,
    snapshots: Any,
    snapshot_row: Any,
    snapshot_incident: Any,
) -> tuple[Any, Any, Any, Any]:
    told = 0
    half = np.int64(1) << (_SCALE_BITS - 1)
    mask = len(squares) - 1
    for i in range(count):
        row = mark_rows[i]
        if mark[i] > mark_ms[row] or drained[row]:
            mark_ms[row] = max(mark_ms[row], mark[i])
            drained[row] = False
            _advance(mark_ms, drained, marks, clock)
        now = clock[0]
        kind = np.int64(category[i])
        group = np.int64(group_of[kind])
        behind_ms[i] = now - time[i]
        is_late = time[i] < now - lateness_ms

        # The same id again?  Groups share this table but not each other's reports.
        hi = key_hi[i] ^ _mixed(np.uint64(group + 1))
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
            place = (np.uint64(partition[i]) << np.uint64(32)) ^ np.uint64(index[i])
            origin_hi = hi ^ _mixed(np.uint64(offset[i]) + np.uint64(0x9E3779B97F4A7C15))
            origin_lo = key_lo[i] ^ _mixed(place + np.uint64(0x9E3779B97F4A7C15))
            origin_at = _find_key(keys, origin_hi, origin_lo)
            if keys[origin_at].used == 1 and keys[origin_at].ingested_ms >= now - remember_ms:
                outcome[i] = REDELIVERED
                continue
            if keys[origin_at].used == 0:
                keys_used += 1
            keys[origin_at].used = 1
            keys[origin_at].hi = origin_hi
            keys[origin_at].lo = origin_lo
            keys[origin_at].incident = keys[at].incident
            keys[origin_at].ingested_ms = ingested[i]
            # From its last coming on, so that whoever remembers a further origin remembers the report.
            keys[at].ingested_ms = max(keys[at].ingested_ms, ingested[i])
            outcome[i] = REPEAT
            if keys[at].incident >= 0:
                incidents[keys[at].incident].repeat_count += 1
                incidents[keys[at].incident].changed_in = batch
            continue
        if not known:
            keys_used += 1
        keys[at].used = 1
        keys[at].hi = hi
        keys[at].lo = key_lo[i]
        keys[at].incident = -1
        keys[at].ingested_ms = ingested[i]
        keys[at].first_partition = partition[i]
        keys[at].first_offset = offset[i]
        keys[at].first_index = index[i]

        if not is_event[kind]:
            outcome[i] = NOT_AN_EVENT
            continue

        best = np.int64(-1)
        best_cm2 = np.int64(0)
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
                            of = incidents[other].category
                            reach = radius_cm[of] + min(np.int64(accuracy[i]), cap_cm[of])
                            last = incidents[other].last_ms
                            if (
                                cm2 <= reach * reach
                                and group_of[of] == group
                                and last - window_ms[of] <= time[i] <= last + window_ms[of]
                                and last + window_ms[of] >= now - lateness_ms
                                and other != best  # two squares may share a hash
                            ):
                                if best < 0 or _comes_before(incidents, cm2, other, best_cm2, best):
                                    runner_up[i] = best
                                    runner_up_cm2[i] = best_cm2
                                    runner_up_allowed[i] = allowed_cm[i]
                                    best = other
                                    best_cm2 = cm2
                                    allowed_cm[i] = reach
                                elif runner_up[i] < 0 or _comes_before(
                                    incidents, cm2, other, runner_up_cm2[i], np.int64(runner_up[i])
                                ):
                                    runner_up[i] = other
                                    runner_up_cm2[i] = cm2
                                    runner_up_allowed[i] = reach
                        slot = (slot + 1) & mask

        if best >= 0:
            matched[i] = True
            distance_cm2[i] = best_cm2
            gap_ms[i] = abs(time[i] - incidents[best].last_ms)
            outcome[i] = LATE if is_late else JOINED
        else:
            outcome[i] = LATE if is_late else OPENED
            best = np.int64(founded)
            founded += 1
            incidents[best].key_hi = key_hi[i]
            incidents[best].key_lo = key_lo[i]
            incidents[best].opened_ms = time[i]
            incidents[best].first_ms = time[i]
            incidents[best].last_ms = time[i]
            incidents[best].lon_e7 = lon[i]
            incidents[best].lat_e7 = lat[i]
            incidents[best].accuracy_cm = accuracy[i]
            incidents[best].category = category[i]
            incidents[best].cell = cell[i]
            incidents[best].pack = pack
            allowed_cm[i] = radius_cm[kind] + min(np.int64(accuracy[i]), cap_cm[kind])
            if lon[i] != NO_POSITION:
                _place_square(
                    squares, group, 2 * reach_lon[group], 2 * reach_lat[group], np.int64(lon[i]), np.int64(lat[i]), best
                )
                squares_used += 1
        keys[at].incident = best
        assigned[i] = best
        is_told = incidents[best].by_source[source[i]] == 0  # an opening, or a further source
        incidents[best].by_source[source[i]] += 1
        incidents[best].report_count += 1
        incidents[best].version += 1
        incidents[best].changed_in = batch
        incidents[best].first_ms = min(incidents[best].first_ms, time[i])
        incidents[best].last_ms = max(incidents[best].last_ms, time[i])
        incidents[best].updated_ms = ingested[i]
        if is_told:
            snapshots[told] = incidents[best]
            snapshot_row[told] = i
            snapshot_incident[told] = best
            told += 1

    # The last state of whatever changed, unless just that was told already.
    before = told - 1
    for i in range(count - 1, -1, -1):
        incident = assigned[i]
        if incident >= 0 and outcome[i] != REDELIVERED and incidents[incident].changed_in == batch:
            incidents[incident].changed_in = -batch
            while before >= 0 and snapshot_row[before] > i:
                before -= 1
            if before < 0 or snapshot_row[before] != i:
                snapshots[told] = incidents[incident]
                snapshot_row[told] = i
                snapshot_incident[told] = incident
                told += 1
    return founded, told, squares_used, keys_used


@_jit
def _comes_before(incidents: Any, cm2: Any, one: Any, other_cm2: Any, other: Any) -> Any:
    """Nearest first, then the smaller (opened_at, incident_id)."""
    if cm2 != other_cm2:
        return cm2 < other_cm2
    if incidents[one].opened_ms != incidents[other].opened_ms:
        return incidents[one].opened_ms < incidents[other].opened_ms
    if incidents[one].key_hi != incidents[other].key_hi:
        return incidents[one].key_hi < incidents[other].key_hi
    return incidents[one].key_lo < incidents[other].key_lo
