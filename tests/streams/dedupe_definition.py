"""The matching rule of CONTRACTS.md 4 in plain Python: the oracle of the kernel.

A list of incidents, a double loop, dictionaries that forget nothing; as slow as it is plain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from streams.pack import CityPack

FIXED_POINT = 1 << 24
"""Centimetres a 1e-7 degree are rounded to this fraction, so that a distance is whole numbers only."""


@dataclass(frozen=True)
class Row:
    """One report.  ``where`` is (lon, lat) in 1e-7 degrees, or None."""

    source: int
    partition: int
    offset: int
    index: int
    mark_ms: int
    ingested_ms: int
    time_ms: int
    where: tuple[int, int] | None
    accuracy_cm: int
    category: int
    key: tuple[int, int]


@dataclass(frozen=True)
class Tick:
    """A source partition was read up to ``newest_ms``."""

    source: int
    partition: int
    newest_ms: int
    drained: bool


@dataclass(frozen=True)
class Open:
    """An incident."""

    key: tuple[int, int]
    category: int
    where: tuple[int, int] | None
    opened_ms: int
    first_ms: int
    last_ms: int
    updated_ms: int
    version: int = 1
    report_count: int = 1
    repeat_count: int = 0
    by_source: tuple[int, ...] = (0, 0, 0, 0)


@dataclass(frozen=True)
class Match:
    """An incident that a report could join; sorted by the contract's order."""

    cm2: int
    opened_ms: int
    key: tuple[int, int]
    number: int
    allowed_cm: int


@dataclass(frozen=True)
class Answer:
    """What the rule says of one report; ``incident`` is its place in order of founding."""

    outcome: str
    incident: int | None
    best: Match | None = None
    runner_up: Match | None = None
    gap_ms: int | None = None
    behind_ms: int | None = None


@dataclass
class _Remembered:
    incident: int | None
    newest_ms: int
    origins: dict[tuple[int, int, int], int] = field(default_factory=dict)


class Definition:
    """Decides on reports one by one."""

    def __init__(self, pack: CityPack, *, lateness_s: int, remember_s: int, one_clock: bool = False) -> None:
        self.categories = pack.categories
        self.window_ms = [round(category.window_s * 1000) for category in pack.categories]
        self.lateness_ms = lateness_s * 1000
        self.remember_ms = remember_s * 1000
        self.one_clock = one_clock
        self.incidents: list[Open] = []
        self.marks: dict[tuple[int, int], tuple[int, bool]] = {}
        self.watermark_ms: int | None = None
        self._remembered: dict[tuple[object, ...], _Remembered] = {}

    def tick(self, tick: Tick) -> None:
        self._mark(tick.source, tick.partition, tick.newest_ms, tick.drained)

    def decide(self, row: Row) -> Answer:
        self._mark(row.source, row.partition, row.mark_ms, False)
        assert self.watermark_ms is not None
        now = self.watermark_ms
        category = self.categories[row.category]
        behind_ms = now - row.time_ms

        horizon_ms = now - self.remember_ms
        remembered = self._remembered.get((category.group, row.key))
        origin = (row.partition, row.offset, row.index)
        if remembered is not None and remembered.newest_ms >= horizon_ms:
            applied_ms = remembered.origins.get(origin)
            if applied_ms is not None and (applied_ms >= horizon_ms or origin == next(iter(remembered.origins))):
                return Answer("redelivered", remembered.incident)
            remembered.origins[origin] = row.ingested_ms
            remembered.newest_ms = max(remembered.newest_ms, row.ingested_ms)
            if remembered.incident is not None:
                old = self.incidents[remembered.incident]
                self.incidents[remembered.incident] = replace(old, repeat_count=old.repeat_count + 1)
            return Answer("repeat", remembered.incident)
        remembered = _Remembered(None, row.ingested_ms, {origin: row.ingested_ms})
        self._remembered[(category.group, row.key)] = remembered
        if not category.event:
            return Answer("not_an_event", None)

        is_late = row.time_ms < now - self.lateness_ms
        matches = sorted(self._matches(row, now), key=lambda match: (match.cm2, match.opened_ms, match.key))
        gap_ms = None
        if matches:
            number = matches[0].number
            old = self.incidents[number]
            gap_ms = abs(row.time_ms - old.last_ms)
            self.incidents[number] = replace(
                old,
                first_ms=min(old.first_ms, row.time_ms),
                last_ms=max(old.last_ms, row.time_ms),
                updated_ms=row.ingested_ms,
                version=old.version + 1,
                report_count=old.report_count + 1,
                by_source=_counted(old.by_source, row.source),
            )
        else:
            number = len(self.incidents)
            by_source = _counted((0, 0, 0, 0), row.source)
            t = row.time_ms
            self.incidents.append(Open(row.key, row.category, row.where, t, t, t, row.ingested_ms, by_source=by_source))
        remembered.incident = number
        outcome = "late" if is_late else "joined" if matches else "opened"
        best, runner_up = (*matches[:2], None, None)[:2]
        return Answer(outcome, number, best, runner_up, gap_ms, behind_ms)

    def _matches(self, row: Row, now: int) -> list[Match]:
        if row.where is None:
            return []
        group = self.categories[row.category].group
        found = []
        for number, incident in enumerate(self.incidents):
            window_ms = self.window_ms[incident.category]
            if not incident.last_ms - window_ms <= row.time_ms <= incident.last_ms + window_ms:
                continue
            of = self.categories[incident.category]
            is_held = incident.last_ms + window_ms >= now - self.lateness_ms
            if of.group != group or incident.where is None or not is_held:
                continue
            allowed_cm = round(of.radius_m * 100) + min(row.accuracy_cm, round(of.accuracy_cap_m * 100))
            cm2 = distance_cm2(row.where, incident.where)
            if cm2 <= allowed_cm**2:
                found.append(Match(cm2, incident.opened_ms, incident.key, number, allowed_cm))
        return found

    def _mark(self, source: int, partition: int, newest_ms: int, drained: bool) -> None:
        clock = (0, 0) if self.one_clock else (source, partition)
        before_ms, _ = self.marks.get(clock, (newest_ms, False))
        self.marks[clock] = (max(before_ms, newest_ms), drained)
        waiting = [mark_ms for mark_ms, is_drained in self.marks.values() if not is_drained]
        now = min(waiting) if waiting else max(mark_ms for mark_ms, _ in self.marks.values())
        self.watermark_ms = now if self.watermark_ms is None else max(self.watermark_ms, now)


def _counted(by_source: tuple[int, ...], source: int) -> tuple[int, ...]:
    return tuple(count + (number == source) for number, count in enumerate(by_source))


def distance_cm2(report: tuple[int, int], founding: tuple[int, int]) -> int:
    """Square of the distance in centimetres, east and north each rounded, by the degrees of the report's latitude."""
    east, north = (
        (2 * (there - here) * scale + FIXED_POINT) // (2 * FIXED_POINT)
        for here, there, scale in zip(report, founding, scales(report[1]), strict=True)
    )
    return east * east + north * north


def scales(lat_e7: int) -> tuple[int, int]:
    """Centimetres a 1e-7 degree of longitude and of latitude, times :data:`FIXED_POINT`; textbook WGS-84."""
    a_m, f = 6_378_137.0, 1 / 298.257223563
    e2 = f * (2 - f)
    phi = math.radians(lat_e7 * 1e-7)
    w = math.sqrt(1 - e2 * math.sin(phi) ** 2)
    east_m = a_m / w * math.cos(phi) * math.pi / 180
    north_m = a_m * (1 - e2) / w**3 * math.pi / 180
    return round(east_m * 1e-5 * FIXED_POINT), round(north_m * 1e-5 * FIXED_POINT)
