"""The datum guard: which sender's positions are in another datum than it declares, by what others know of the place.

A *sender* is a platform of a source, and the datum that it declares.  Its reports are held against three witnesses of
where things truly are:

- **its own devices**: a message with a position of its own, of a device that stands in the registry;
- **places**: a message with a position and an address that the gazetteer knows well;
- **other sources**: their reports of the same category group, within two hours.

Each is asked seven times: is it where the sender says, is it where the position would be were it in the first or the
second other datum, and is it as far from where the sender says in four other directions?  The last four measure chance,
in this city, at this hour, with these categories; nothing has to be assumed of how dense reports lie.  A sender is
named if another datum is borne out more often than chance would have it, and more often than the declared one.

So a sender with some wrong positions is not named, nor is one that scatters widely: no view of it is better than
another.  Where two senders contradict each other and nobody else knows better, both are named, each as the other's
alternative.  An offset of 300 to 1,400 m from devices and places that no datum explains is named as one.

Pure: no clock and no log; what is found depends on the reports taken and on their order, not on how they are batched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from geo.datum import from_wgs84, to_wgs84
from geo.gazetteer import Gazetteer
from geo.plane import metres_per_degree
from streams.datum_kernels import (
    BUCKETS,
    DUE,
    ENOUGH,
    EVIDENCE,
    IT_IS_TIME,
    LOOK_EVERY,
    MOST_SENDERS,
    NOBODY,
    NOW,
    PLACES_ITSELF_BELOW,
    REMEMBERED,
    REPORT,
    VAGUE_CM,
    VIEWS,
    count_views,
    take_reports,
)
from streams.messages import SOURCES
from streams.pack_entries import Device
from streams.reports import LocatedReports

DATUMS = ("wgs84", "gcj02", "bd09")
"""What a position may be in; CGCS2000 is WGS-84 to less than a metre."""
REGISTRY, BY_NAME = 3, 4
"""In place of a declared datum: the position is the device's in the registry, or a place's that a text names."""
LEAST_OFFSET_M, MOST_OFFSET_M = 300, 1_400
"""An offset between these is looked for: less is inaccuracy, and no datum shifts by more."""

assert len(DATUMS) == REGISTRY == PLACES_ITSELF_BELOW
_WAIT_MS = 2 * 3_600_000
_STALE_MS = 3 * 86_400_000
_LOOK_AGAIN_MS = 3_600_000
_NEVER_MS = 2**62
_MOST_PLATFORMS = 1_000
_MOST_WITNESSES = 256
_WITNESS_DM = 2_500
_VAGUE_PLACE_M = 150.0
_LATTICE_DEG = 0.005
_LATTICE_MOST = 200
# No more often is a device or an address of a sender looked up: an address costs more than all else here.
_DEVICE_EVERY_MS, _ADDRESS_EVERY_MS = 60_000, 3 * 3_600_000
# Natural logarithms of how much less likely what is seen were by chance.
_NAMED_FROM, _NAMED_UNTIL = 14.0, 5.0

_Ints = npt.NDArray[np.int64]


class Finding(NamedTuple):
    """A sender whose positions are not where they are declared to be."""

    source: str
    platform: str
    """Empty: the source's own."""
    declared: str
    really: str
    """The datum that would explain it; empty: none does."""
    east_m: int
    north_m: int
    """Where its positions lie from the truth, metres, in the middle of the city."""
    borne_out: int
    """Of its newest evidence, how much has a witness where ``really`` would have it (or the offset) ..."""
    as_declared: int
    """... and how much where it says."""
    by_chance: float
    """How much of it must be expected to have one by chance."""
    or_else: str = ""
    """The sender that is wrong if this one is right, where nothing tells which."""

    @property
    def offset_m(self) -> int:
        """How far its positions lie off."""
        return round(math.hypot(self.east_m, self.north_m))

    @property
    def sender(self) -> str:
        """Its source and platform."""
        return f"{self.source}/{self.platform}" if self.platform else self.source

    def __str__(self) -> str:
        what = f"sends {self.really}" if self.really else "is off by what no datum explains"
        told = (
            f"{self.sender} declares {self.declared} and {what} ({self.offset_m:,} m {_towards(self)}): of its newest "
            f"evidence {self.borne_out} bear that out, {self.as_declared} the declared datum, chance {self.by_chance:g}"
        )
        return f"{told}; or else {self.or_else} is wrong" if self.or_else else told


def _towards(finding: Finding) -> str:
    eighth = round(math.degrees(math.atan2(finding.east_m, finding.north_m)) / 45) % 8
    return ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")[eighth]


class DatumGround:
    """What the guard needs to know of a city pack: how datums shift there, where devices stand, how places are called.

    The shifts are taken from a lattice of 0.005° (of a wider one, if the city spans more than 1°): half a step away
    they are others by six metres, for Baidu's ripples every 0.12°.
    """

    def __init__(
        self, bounds: tuple[float, float, float, float], devices: Mapping[str, Device], gazetteer: Gazetteer
    ) -> None:
        self.devices = devices
        self.gazetteer = gazetteer
        west, south, east, north = bounds
        spans_e7 = [round(span * 1e7) for span in (east - west, north - south)]
        step_e7 = max(round(_LATTICE_DEG * 1e7), *(-(-span // _LATTICE_MOST) for span in spans_e7))
        columns, rows = (1 + span // step_e7 for span in spans_e7)
        self.layout: _Ints = np.array([round(west * 1e7), round(south * 1e7), step_e7, columns, rows], np.int64)
        """The city's corner and the lattice's step, 1e-7 degrees; its columns and rows."""
        m_lon, m_lat = (float(one) for one in metres_per_degree((south + north) / 2))
        self.scale: npt.NDArray[np.float64] = np.array([m_lon, m_lat]) * 1e-6
        """Decimetres of 1e-7 degrees of longitude and of latitude, in the middle of the city."""
        lon, lat = np.meshgrid(
            west + (np.arange(columns) + 0.5) * step_e7 / 1e7, south + (np.arange(rows) + 0.5) * step_e7 / 1e7
        )
        lon, lat = lon.ravel(), lat.ravel()
        self.shifts = np.zeros((len(lon), len(DATUMS), VIEWS, 2), np.int32)
        """By place of the lattice, declared datum and view: east and north, decimetres; none where it is too short."""
        for number, declared in enumerate(DATUMS):
            written = from_wgs84(lon, lat, declared)
            for at, other in enumerate(others(number)):
                true_lon, true_lat = to_wgs84(*written, DATUMS[other])
                shift = np.stack(((true_lon - lon) * m_lon, (true_lat - lat) * m_lat), axis=1) * 10
                shift[np.hypot(*shift.T) < LEAST_OFFSET_M * 10] = 0
                self.shifts[:, number, 1 + at] = np.rint(shift)
                self.shifts[:, number, 3 + 2 * at] = np.rint(shift[:, ::-1] * (-1, 1))
                self.shifts[:, number, 4 + 2 * at] = np.rint(shift[:, ::-1] * (1, -1))

    def plane_dm(self, lon_e7: int, lat_e7: int) -> tuple[int, int]:
        """How far east and north of the city's corner a position lies, decimetres; good enough for a kilometre."""
        west_e7, south_e7, *_ = self.layout.tolist()
        dm_lon, dm_lat = self.scale.tolist()
        return round((lon_e7 - west_e7) * dm_lon), round((lat_e7 - south_e7) * dm_lat)

    def lattice(self, lon_e7: int, lat_e7: int) -> int:
        """The place of the lattice that a position is nearest to."""
        west_e7, south_e7, step_e7, columns, rows = self.layout.tolist()
        column, row = (lon_e7 - west_e7) // step_e7, (lat_e7 - south_e7) // step_e7
        return int(min(max(row, 0), rows - 1) * columns + min(max(column, 0), columns - 1))

    def offset_m(self, declared: int, view: int) -> tuple[int, int]:
        """Where positions in another datum lie from the truth, in the middle of the city, metres."""
        east, north = self.shifts[len(self.shifts) // 2, declared, view].tolist()
        return round(-east / 10), round(-north / 10)


def others(datum: int) -> tuple[int, int]:
    """The two other datums, in order: those of views 1 and 2."""
    first, second = (one for one in range(len(DATUMS)) if one != datum)
    return first, second


class DatumGuard:
    """Holds positions against one another, and says whose datum is not what it declares.

    Bounded: the newest 32,768 reports; of each of at most 62 senders the newest 256 with evidence, and its newest 256
    devices and places.  Further senders are not looked at.  A report is held against others two hours after it came, so
    that they may come after it.  Evidence older than three days is none.
    """

    def __init__(self, ground: DatumGround) -> None:
        self.findings: tuple[Finding, ...] = ()
        """By source, platform and declared datum."""
        self._ground = ground
        self._platforms: dict[str, int] = {}
        self._sender_of: npt.NDArray[np.int16] = np.full(0, _UNMET, np.int16)
        self._senders: list[tuple[int, str, int]] = []
        self._reports = np.zeros(REMEMBERED, REPORT)
        self._heads = np.full(BUCKETS, -1, np.int64)
        self._clock = np.array([0, 0, -_NEVER_MS, _NEVER_MS], np.int64)
        self._masks = np.zeros((MOST_SENDERS, EVIDENCE, VIEWS), np.int64)
        self._squares = np.zeros((MOST_SENDERS, EVIDENCE), np.int64)
        self._counts = np.zeros(MOST_SENDERS, np.int64)
        self._heard_ms = np.full(MOST_SENDERS, -_NEVER_MS, np.int64)
        self._tried_ms = np.full(MOST_SENDERS, -_NEVER_MS, np.int64)
        self._named = np.zeros(MOST_SENDERS, np.bool_)
        self._named_as: dict[int, int] = {}
        self._witnesses: list[_Witnesses] = [_Witnesses() for _ in range(MOST_SENDERS)]
        self._looked_up = [
            ([-_NEVER_MS] * MOST_SENDERS, pause_ms) for pause_ms in (_ADDRESS_EVERY_MS, _DEVICE_EVERY_MS)
        ]
        self._verdict(0, 0)  # compiled now, and not in the midst of a batch

    @property
    def memory_bytes(self) -> int:
        """What its columns take."""
        columns = (self._reports, self._heads, self._masks, self._squares)
        return sum(column.nbytes for column in columns)

    def take(
        self,
        reports: LocatedReports,
        placed_by: npt.NDArray[np.int8],
        group: npt.NDArray[np.int32],
        rows: npt.NDArray[np.intp],
    ) -> None:
        """Look at reports; what is found stands in `findings`.

        Parameters
        ----------
        reports : LocatedReports
            In stream order.
        placed_by : int8 array, one a report
            The datum that its position was declared in, an index into `DATUMS`; `REGISTRY` or `BY_NAME`.
        group : int32 array, one a report
            Number of its category's group; -1 for what is no event, or not yet known to be one.
        rows : intp array
            Which of the reports to look at, ascending; all of them have a position.
        """
        if not len(rows):
            return
        at = slice(None) if len(rows) == len(reports) else rows
        by, device, address = placed_by[at], reports.device[at], reports.address[at]
        sender = self._senders_of(reports.source[at], reports.platform[at], by)
        columns = (
            rows, reports.source, sender, by, group, reports.lon_e7, reports.lat_e7, reports.accuracy_cm,
            reports.time_ms, reports.ingested_ms,
        )  # fmt: skip
        taken = 0
        has_witness = np.flatnonzero((by < REGISTRY) & (device.astype(np.bool_) | address.astype(np.bool_)))
        arrived_ms = reports.ingested_ms[rows[has_witness]]
        for one, who, now_ms in zip(
            has_witness.tolist(), sender[has_witness].tolist(), arrived_ms.tolist(), strict=True
        ):
            is_device = bool(device[one])
            looked_up_ms, pause_ms = self._looked_up[is_device]
            if who < 0 or 0 <= now_ms - looked_up_ms[who] < pause_ms:
                continue
            row = rows[one]
            if reports.accuracy_cm[row] > VAGUE_CM:
                continue
            looked_up_ms[who] = now_ms
            witness = self._device(device[one]) if is_device else self._place(address[one])
            if witness is None:
                continue
            self._note(who, *witness, int(reports.lon_e7[row]), int(reports.lat_e7[row]))
            if self._witnesses[who].changes % LOOK_EVERY == 0:
                # What was seen up to here is judged by what was known before, however much came at once.
                taken = self._take(columns, taken, one + 1)
                self._witnesses[who].sum_up(self._ground.shifts[:, by[one]])
                self._clock[NOW] = max(self._clock[NOW], now_ms)
                self._heard_ms[who] = self._clock[NOW]
                self._look()
        self._take(columns, taken, len(rows))

    def _take(self, columns: Any, start: int, end: int) -> int:
        while start < end:
            start, who = take_reports(
                start, end, self._ground.layout, self._ground.scale, self._reports, self._heads, self._clock,
                self._ground.shifts, self._masks, self._squares, self._counts, self._heard_ms, self._tried_ms,
                self._named, _WAIT_MS, *columns,
            )  # fmt: skip
            if who == NOBODY:
                break
            assert who == IT_IS_TIME or 0 <= who < len(self._senders)
            self._look()
        return end

    # ------------------------------------------------------------------------------------------------------ senders

    def _senders_of(
        self, source: npt.NDArray[np.int8], platform: npt.NDArray[np.object_], by: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.int16]:
        """The number of each row's sender, -1 for one too many."""
        known = self._platforms
        names = platform.tolist()
        numbers = [known.get(name, -1) for name in names]
        if -1 in numbers:
            for name in names:
                if name not in known and len(known) < _MOST_PLATFORMS:
                    known[name] = len(known)
            more = np.full(len(known) * _KINDS - len(self._sender_of), _UNMET, np.int16)
            self._sender_of = np.concatenate([self._sender_of, more])
            numbers = [known.get(name, -1) for name in names]
        code = np.asarray(numbers, np.int64) * _KINDS + source.astype(np.int64) * (BY_NAME + 1) + by
        sender = np.where(code >= 0, self._sender_of[code], np.int16(-1))
        unmet = np.flatnonzero(sender == _UNMET)
        if len(unmet):
            for row in unmet.tolist():
                if self._sender_of[code[row]] == _UNMET:
                    one = (int(source[row]), names[row], int(by[row]))
                    self._sender_of[code[row]] = self._new_sender(one)
            sender = np.where(code >= 0, self._sender_of[code], np.int16(-1))
        return sender

    def _new_sender(self, sender: tuple[int, str, int]) -> int:
        if len(self._senders) == MOST_SENDERS:
            return -1
        self._senders.append(sender)
        return len(self._senders) - 1

    # ---------------------------------------------------------------------------------------------------- witnesses

    def _device(self, device: str) -> tuple[str, float, float] | None:
        """The device that a report is of, and where that stands."""
        stands = self._ground.devices.get(device)
        return None if stands is None else ("d" + device, stands.lon, stands.lat)

    def _place(self, address: str) -> tuple[str, float, float] | None:
        """The place that an address names, and where that is, if it is known well."""
        placed = self._ground.gazetteer.place(address, "")
        if placed is None or placed.accuracy_m > _VAGUE_PLACE_M:
            return None
        return "p" + placed.name, placed.lon, placed.lat

    def _note(self, sender: int, name: str, lon_deg: float, lat_deg: float, lon_e7: int, lat_e7: int) -> None:
        """How far a report lies from its witness."""
        ground = self._ground
        x, y = ground.plane_dm(lon_e7, lat_e7)
        east, north = ground.plane_dm(round(lon_deg * 1e7), round(lat_deg * 1e7))
        self._witnesses[sender].note(name, x - east, y - north, ground.lattice(lon_e7, lat_e7))

    # ------------------------------------------------------------------------------------------------------ judging

    def _look(self) -> None:
        """Name whose datum is wrong, by all that is known now."""
        now_ms = int(self._clock[NOW])
        suspects = [
            number
            for number, (_, _, datum) in enumerate(self._senders)
            if datum < REGISTRY and self._heard_ms[number] >= now_ms - _STALE_MS
        ]
        named: dict[int, _Verdict] = {}
        alternative: dict[int, int] = {}
        excluded = 0
        while True:
            accused = {}
            for number in suspects:
                if number not in named:
                    verdict = self._verdict(number, excluded)
                    if verdict.score >= (_NAMED_UNTIL if number in self._named_as else _NAMED_FROM):
                        accused[number] = verdict
            if not accused:
                break
            # Whoever is off from one that is off itself is so only as long as that one is believed.
            without = {
                number: min(
                    (
                        (self._verdict(number, excluded | 1 << rival).score, rival)
                        for rival in accused
                        if rival != number
                    ),
                    default=(verdict.score, number),
                )
                for number, verdict in accused.items()
            }
            first = max(accused, key=lambda number: (without[number][0], accused[number].score, -number))
            named[first] = accused[first]
            excluded |= 1 << first
            score, rival = without[first]
            if score < _NAMED_UNTIL and without[rival][0] < _NAMED_UNTIL:
                named[rival] = accused[rival]
                excluded |= 1 << rival
                alternative |= {first: rival, rival: first}
        findings = [self._finding(number, verdict, alternative.get(number)) for number, verdict in named.items()]
        for number in suspects:
            if number not in named:
                finding = self._unexplained(number)
                if finding is not None:
                    findings.append(finding)
        self.findings = tuple(sorted(findings))
        self._named_as = {number: verdict.view for number, verdict in named.items()}
        self._named[:] = False
        self._named[list(named)] = True
        self._clock[DUE] = now_ms + _LOOK_AGAIN_MS if findings else _NEVER_MS

    def _verdict(self, sender: int, excluded: int) -> _Verdict:
        """How sure it is that a sender's positions are in another datum, and in which."""
        counts = np.zeros(VIEWS + 4, np.int64)
        count_views(sender, excluded, self._masks, self._squares, self._counts, counts)
        counts += self._witnesses[sender].counts
        best = _Verdict(0.0, 1, 0, 0, 0.0)
        for view in (1, 2):
            borne_out = int(counts[view])
            decoys = int(counts[1 + 2 * view] + counts[2 + 2 * view])
            instead, only_declared = int(counts[VIEWS + view - 1]), int(counts[VIEWS + view + 1])
            if instead < ENOUGH:
                continue
            over_chance = _surprise(borne_out, borne_out + decoys, 1 / 3)
            over_declared = _surprise(instead, instead + only_declared, 1 / 2)
            score = min(1.4 * over_chance, 2 * over_declared)
            if score > best.score:
                best = _Verdict(score, view, borne_out, int(counts[0]), decoys / 2)
        return best

    def _finding(self, sender: int, verdict: _Verdict, alternative: int | None) -> Finding:
        source, platform, declared = self._senders[sender]
        really = others(declared)[verdict.view - 1]
        or_else = ""
        if alternative is not None:
            other_source, other_platform, _ = self._senders[alternative]
            or_else = f"{SOURCES[other_source]}/{other_platform}" if other_platform else SOURCES[other_source]
        return Finding(
            SOURCES[source], platform, DATUMS[declared], DATUMS[really],
            *self._ground.offset_m(declared, verdict.view), verdict.borne_out, verdict.as_declared, verdict.by_chance,
            or_else,
        )  # fmt: skip

    def _unexplained(self, sender: int) -> Finding | None:
        offset = self._witnesses[sender].offset
        if offset is None:
            return None
        source, platform, declared = self._senders[sender]
        return Finding(SOURCES[source], platform, DATUMS[declared], "", *offset, 0.0)


_KINDS = len(SOURCES) * (BY_NAME + 1)
_UNMET = -2


class _Verdict(NamedTuple):
    score: float
    view: int
    borne_out: int
    as_declared: int
    by_chance: float


class _Witnesses:
    """How far a sender's positions lie from its own devices and from places it names: the newest of each."""

    def __init__(self) -> None:
        self.changes = 0
        self.counts = np.zeros(VIEWS + 4, np.int64)
        """As `streams.datum_kernels.count_views` has them; 0 until they are summed up."""
        self.offset: tuple[int, int, int, int] | None = None
        """East and north, metres, that most have in common though no datum explains it; how many do, and how many lie
        where they are said to."""
        self._offsets: dict[str, tuple[int, int, int]] = {}

    def note(self, name: str, east_dm: int, north_dm: int, place: int) -> None:
        """The newest of a device or place takes the place of what was seen of it before."""
        self._offsets.pop(name, None)
        if len(self._offsets) == _MOST_WITNESSES:
            del self._offsets[next(iter(self._offsets))]
        self._offsets[name] = (east_dm, north_dm, place)
        self.changes += 1

    def sum_up(self, shifts: npt.NDArray[np.int32]) -> None:
        """Count anew; ``shifts`` are those of the declared datum."""
        offsets = np.array(list(self._offsets.values()), np.int64)
        shift = shifts[offsets[:, 2]]
        seen = offsets[:, None, :2] + shift
        near = (seen**2).sum(axis=2) <= _WITNESS_DM**2
        near[:, 1:] &= (shift[:, 1:] != 0).any(axis=2)
        instead = near[:, 1:3] & ~near[:, :1]
        only_declared = near[:, :1] & ~near[:, 1:3]
        self.counts = np.concatenate([near, instead, only_declared], axis=1).sum(axis=0)
        self.offset = None
        if len(offsets) < 2 * ENOUGH:
            return
        middle = np.sort(offsets[:, :2], axis=0)[len(offsets) // 2]
        alike = int((((offsets[:, :2] - middle) ** 2).sum(axis=1) <= _WITNESS_DM**2).sum())
        length_dm = math.hypot(*middle.tolist())
        is_explained = (((middle + shift[len(offsets) // 2, 1:3]) ** 2).sum(axis=1) <= _WITNESS_DM**2).any()
        at_home = int(near[:, 0].sum())
        if (
            LEAST_OFFSET_M * 10 <= length_dm <= MOST_OFFSET_M * 10
            and not is_explained
            and 2 * alike >= len(offsets)
            and 3 * at_home <= alike
        ):
            east, north = (middle / 10).round().astype(int).tolist()
            self.offset = (east, north, alike, at_home)


def _surprise(hits: int, of: int, share: float) -> float:
    """Upper bound, as a negative natural logarithm, of the chance that so many of so many hit where ``share`` should.

    0 where fewer hit than should.
    """
    seen = hits / of if of else 0.0
    if seen <= share:
        return 0.0
    miss = 0.0 if hits == of else (1 - seen) * math.log((1 - seen) / (1 - share))
    return of * (seen * math.log(seen / share) + miss)
