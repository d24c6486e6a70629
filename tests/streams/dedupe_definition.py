"""The matching rule and the life of an incident (docs/contract.md) in plain Python: the oracle of the kernel.

A list of incidents, a double loop, dictionaries that forget nothing; as slow as it is plain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from streams.messages import SOURCES
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
    content: int = 0
    witness: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class Said:
    """One feedback message about the incident with that key."""

    id: int
    action: str
    group: str
    key: tuple[int, int]
    time_ms: int
    ingested_ms: int
    offset: int


STEPS = {
    "accept": ("accepted", {"suspected", "open"}),
    "dispatch": ("dispatched", {"suspected", "open", "accepted"}),
    "dispose": ("disposed", {"suspected", "open", "accepted", "dispatched"}),
    "close": ("closed", {"suspected", "open", "accepted", "dispatched", "disposed"}),
    "reject": ("rejected", {"suspected", "open", "accepted"}),
    "reopen": ("open", {"closed", "rejected"}),
}


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
    status: str = "open"
    ended_ms: int | None = None
    recurrence_of: int | None = None
    has_recurred: bool = False
    witness_count: int = 1
    odds: int | None = None
    """Log-odds in thousandths; None where nobody knows."""


@dataclass(frozen=True)
class Match:
    """An incident that a report joins, reopens or is a recurrence of."""

    rank: int
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
    recurrence_of: int | None = None
    is_confirmed: bool = False
    """The incident was suspected before."""


JOINED, REOPENED, RECURRED = range(3)
YEAR_MS = 366 * 86_400_000


@dataclass
class _Remembered:
    incident: int | None
    newest_ms: int
    origins: dict[tuple[int, int, int], int] = field(default_factory=dict)
    content: int = 0
    has_founded: bool = False


@dataclass
class _Witness:
    """Who saw an incident: when he was heard last, and how far each of his reports was believed."""

    heard_ms: int
    odds: list[int | None]


class Definition:
    """Decides on reports one by one."""

    def __init__(self, pack: CityPack, *, lateness_s: int, remember_s: int, one_clock: bool = False) -> None:
        self.categories = pack.categories
        self.sources = [pack.sources[source] for source in SOURCES]
        self.window_ms = [round(category.window_s * 1000) for category in pack.categories]
        self.lateness_ms = lateness_s * 1000
        self.remember_ms = remember_s * 1000
        self.one_clock = one_clock
        self.incidents: list[Open] = []
        self.marks: dict[tuple[int, int], tuple[int, bool]] = {}
        self.watermark_ms: int | None = None
        self._remembered: dict[tuple[object, ...], _Remembered] = {}
        self._heard: dict[tuple[object, ...], dict[int, int]] = {}
        self._applied: dict[tuple[object, ...], int] = {}
        self._witnesses: dict[tuple[int, object], _Witness] = {}
        self._counted: dict[int, list[_Witness]] = {}

    def hear(self, said: Said) -> tuple[str, int | None]:
        """What becomes of feedback, and the incident it is about."""
        now = max(said.ingested_ms, -(2**62) if self.watermark_ms is None else self.watermark_ms)
        horizon_ms = now - self.remember_ms
        heard = self._heard.setdefault((said.group, said.id, said.key), {})
        if heard.get(said.offset, horizon_ms - 1) >= horizon_ms:
            return "redelivered", None
        heard[said.offset] = said.ingested_ms
        about = [
            number
            for number, one in enumerate(self.incidents)
            if one.key == said.key and self.categories[one.category].group == said.group
        ]
        if not about:
            return "unknown_incident", None
        (number,) = about
        old = self.incidents[number]
        if self._applied.get((said.group, said.id, said.key), horizon_ms - 1) >= horizon_ms:
            return "repeated", number
        status, may_follow = STEPS[said.action]
        if old.status not in may_follow:
            return "illegal_transition", number
        self._applied[(said.group, said.id, said.key)] = said.ingested_ms
        self.incidents[number] = replace(
            old,
            status=status,
            ended_ms=said.time_ms if status in ("closed", "rejected") else None,
            version=old.version + 1,
            updated_ms=said.ingested_ms,
        )
        return "applied", number

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
        origin = (row.source, row.partition, row.offset, row.index)
        if remembered is not None and remembered.newest_ms >= horizon_ms:
            applied_ms = remembered.origins.get(origin)
            if applied_ms is not None and (applied_ms >= horizon_ms or origin == next(iter(remembered.origins))):
                return Answer("redelivered", remembered.incident)
            remembered.origins[origin] = row.ingested_ms
            remembered.newest_ms = max(remembered.newest_ms, row.ingested_ms)
            amends = 0 not in (row.content, remembered.content) and row.content != remembered.content
            remembered.content = row.content or remembered.content
            if remembered.incident is not None:
                old = self.incidents[remembered.incident]
                if not amends:
                    self.incidents[remembered.incident] = replace(old, repeat_count=old.repeat_count + 1)
                    return Answer("repeat", remembered.incident)
                self._amend(remembered.incident, row, has_founded=remembered.has_founded)
                return Answer("amended", remembered.incident)
            if not amends or not category.event:
                return Answer("amended" if amends else "repeat", None)
        else:
            remembered = _Remembered(None, row.ingested_ms, {origin: row.ingested_ms}, row.content)
            self._remembered[(category.group, row.key)] = remembered
        if not category.event:
            return Answer("not_an_event", None)

        is_late = row.time_ms < now - self.lateness_ms
        near = sorted(
            self._near(row, now),
            key=lambda match: (match.rank == RECURRED, match.cm2, match.opened_ms, match.key),
        )
        matches = [match for match in near if match.rank != RECURRED]
        gap_ms = past = None
        outcome = "opened"
        may_doubt = False
        if matches:
            number = matches[0].number
            outcome = "reopened" if matches[0].rank == REOPENED else "joined"
            old = self.incidents[number]
            if outcome == "reopened":
                may_doubt = old.status == "rejected"
                old = replace(old, status="open", ended_ms=None)
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
            if near:
                past = near[0].number
                self.incidents[past] = replace(self.incidents[past], has_recurred=True)
            made = Open(self._key_for(row), row.category, row.where, t, t, t, row.ingested_ms, by_source=by_source)
            self.incidents.append(replace(made, recurrence_of=past, witness_count=0))
            remembered.has_founded = may_doubt = True
        remembered.incident = number
        self._hear(number, row, horizon_ms)
        if may_doubt and self._is_doubtful(self.incidents[number]):
            self.incidents[number] = replace(self.incidents[number], status="suspected")
        is_confirmed = self._confirm(number)
        best, runner_up = (*matches[:2], None, None)[:2]
        outcome = "late" if is_late else outcome
        return Answer(outcome, number, best, runner_up, gap_ms, behind_ms, past, is_confirmed)

    def _amend(self, number: int, row: Row, *, has_founded: bool) -> None:
        """The report of an incident says something else; what founded it says what it is, and where if nobody knew."""
        old = self.incidents[number]
        old = replace(old, version=old.version + 1, updated_ms=row.ingested_ms)
        if has_founded:
            category = row.category if self.categories[row.category].event else old.category
            old = replace(old, category=category, where=row.where if old.where is None else old.where)
        self.incidents[number] = old
        if has_founded:
            self._confirm(number)

    def _hear(self, number: int, row: Row, horizon_ms: int) -> None:
        """Count the report's witness, unless he was, and believe all of them together."""
        odds = self._odds(row)
        who = (row.source, row.witness) if row.witness else object()
        known = self._witnesses.get((number, who))
        if known is None or known.heard_ms < horizon_ms:
            known = self._witnesses[number, who] = _Witness(row.ingested_ms, [])
            self._counted.setdefault(number, []).append(known)
        known.heard_ms = max(known.heard_ms, row.ingested_ms)
        known.odds.append(odds)
        best = [most(witness.odds) for witness in self._counted[number]]
        given = [one for one in best if one is not None]
        even = [one for one in given if one >= 0]
        together = sum(even) if even else most(given)
        self.incidents[number] = replace(self.incidents[number], witness_count=len(best), odds=together)

    def _odds(self, row: Row) -> int | None:
        """How far one report is believed."""
        category, source = self.categories[row.category], self.sources[row.source]
        given = [category.confidence.get(source.name, source.confidence), row.confidence]
        said = [round(confidence, 3) for confidence in given if confidence is not None]
        return log_odds(min(said)) if said else None

    def _is_doubtful(self, incident: Open) -> bool:
        least = self.categories[incident.category].confirm_below
        return least is not None and incident.odds is not None and incident.odds < log_odds(least)

    def _confirm(self, number: int) -> bool:
        incident = self.incidents[number]
        if incident.status != "suspected" or self._is_doubtful(incident):
            return False
        self.incidents[number] = replace(incident, status="open")
        return True

    def _key_for(self, row: Row) -> tuple[int, int]:
        """The report's key, or where an incident of its group has that, the next that none has."""
        group = self.categories[row.category].group
        taken = {one.key for one in self.incidents if self.categories[one.category].group == group}
        hi, lo = row.key
        while (hi, lo) in taken:
            lo = mixed(lo + 1)
        return hi, lo

    def _near(self, row: Row, now: int) -> list[Match]:
        if row.where is None:
            return []
        group = self.categories[row.category].group
        found = []
        for number, incident in enumerate(self.incidents):
            of = self.categories[incident.category]
            rank = self._rank(incident, row.time_ms, now - self.lateness_ms)
            if of.group != group or incident.where is None or rank is None:
                continue
            allowed_cm = round(of.radius_m * 100) + min(row.accuracy_cm, round(of.accuracy_cap_m * 100))
            cm2 = distance_cm2(row.where, incident.where)
            if cm2 <= allowed_cm**2:
                found.append(Match(rank, cm2, incident.opened_ms, incident.key, number, allowed_cm))
        return found

    def _rank(self, incident: Open, time_ms: int, held_from: int) -> int | None:
        """Whether a report of that time, near the incident, joins or reopens it, is its recurrence, or none of it."""
        window_ms = self.window_ms[incident.category]
        reopen_ms = round(self.categories[incident.category].reopen_s * 1000)
        window_start, window_end = incident.last_ms - window_ms, incident.last_ms + window_ms
        in_window = window_start <= time_ms <= window_end and window_end >= held_from
        if incident.ended_ms is None:
            if in_window:
                return JOINED
            until = window_end + reopen_ms
            recurs = window_end < time_ms <= until and until >= held_from and not incident.has_recurred
            return RECURRED if recurs else None
        if time_ms <= incident.ended_ms:
            in_hand = window_start <= time_ms and incident.ended_ms >= held_from and not incident.has_recurred
            return JOINED if in_window or in_hand else None
        until = incident.ended_ms + reopen_ms
        if incident.has_recurred or until + YEAR_MS < max(time_ms, held_from):
            return None
        return REOPENED if time_ms <= until else RECURRED

    def _mark(self, source: int, partition: int, newest_ms: int, drained: bool) -> None:
        clock = (0, 0) if self.one_clock else (source, partition)
        before_ms, _ = self.marks.get(clock, (newest_ms, False))
        self.marks[clock] = (max(before_ms, newest_ms), drained)
        waiting = [mark_ms for mark_ms, is_drained in self.marks.values() if not is_drained]
        now = min(waiting) if waiting else max(mark_ms for mark_ms, _ in self.marks.values())
        self.watermark_ms = now if self.watermark_ms is None else max(self.watermark_ms, now)


def log_odds(confidence: float) -> int:
    """In thousandths; nobody is believed more than 0.99 or less than 0.01."""
    share = min(max(confidence, 0.01), 0.99)
    return round(1000 * math.log(share / (1 - share)))


def most(odds: Sequence[int | None]) -> int | None:
    """The largest that is known."""
    return max((one for one in odds if one is not None), default=None)


def mixed(number: int) -> int:
    """The finaliser of MurmurHash3, 64 bits."""
    mask = 2**64 - 1
    number &= mask
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        number = (number ^ number >> 33) * factor & mask
    return number ^ number >> 33


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
