"""The contract as a city office would keep it by hand: dictionaries, one message at a time, nothing forgotten.

The oracle of the whole pipeline.  It reads messages, not columns, and knows nothing of shards, blocks or kernels.  What
it takes from the service is the names of incidents, for a hash cannot be known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from streams.pack import CityPack

FUTURE_MS, TOO_OLD_MS, LATENESS_MS, YEAR_MS = 600_000, 30 * 86_400_000, 600_000, 366 * 86_400_000
FORWARD = ["open", "accepted", "dispatched", "disposed", "closed"]
STEP = {"accept": "accepted", "dispatch": "dispatched", "dispose": "disposed", "close": "closed"}


def next_status(status: str, action: str) -> str | None:
    """What an action leads to; None if it may not follow."""
    if action == "reject":
        return "rejected" if status in ("open", "accepted") else None
    if action == "reopen":
        return "open" if status in ("closed", "rejected") else None
    if status == "rejected" or FORWARD.index(STEP[action]) <= FORWARD.index(status):
        return None
    return STEP[action]


def written(time_ms: int) -> str:
    at = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03}Z"


@dataclass
class Known:
    """An incident, with the terms it was founded under."""

    fields: dict[str, Any]
    group: str
    east_m: float | None
    radius_m: float
    accuracy_cap_m: float
    window_ms: int
    reopen_ms: int
    opened_ms: int
    first_ms: int
    last_ms: int
    ended_ms: int | None = None
    has_recurred: bool = False
    states: list[dict[str, Any]] = field(default_factory=list)
    """Every state since the last batch; `must_tell` are the numbers of those that may not be left out."""
    must_tell: set[int] = field(default_factory=set)

    def changed(self, *, tell: bool) -> None:
        if tell:
            self.must_tell.add(len(self.states))
        self.states.append({**self.fields, "sources": dict(self.fields["sources"])})


@dataclass(frozen=True)
class Answer:
    """What became of an element: an outcome, a reason, `applied`, `repeated`, `redelivered` or `quiet`."""

    became: str
    incident_id: str | None = None
    distance_m: float | None = None
    gap_s: float | None = None
    rule: str | None = None
    late_s: float | None = None
    recurrence_of: str | None = None


class ContractCity:
    """Answers each element in order; ``founded`` tells the name of the incident that a report founds."""

    def __init__(self, *, one_clock: bool) -> None:
        self.one_clock = one_clock
        self.incidents: dict[str, Known] = {}
        self.read_up_to: dict[Any, int] = {}
        self.marks: dict[Any, tuple[int, bool]] = {}
        self.watermark_ms: int | None = None
        self.reports: dict[Any, dict[str, Any]] = {}
        self.copies: dict[Any, tuple[str, Any]] = {}
        self.newest_mark_ms = -(2**62)
        self.heard: dict[Any, int] = {}
        self.applied: dict[Any, int] = {}

    # ------------------------------------------------------------------------------------------------------- time

    def read(self, topic: str, partition: int, came_ms: int) -> None:
        """A record was read: whatever becomes of it, its partition was read up to there."""
        clock = self._clock(topic, partition)
        self.read_up_to[clock] = max(self.read_up_to.get(clock, came_ms), came_ms)

    def mark(self, topic: str, partition: int, newest_ms: int, drained: bool) -> None:
        clock = self._clock(topic, partition)
        before_ms, _ = self.marks.get(clock, (newest_ms, False))
        self.marks[clock] = (max(before_ms, newest_ms), drained)
        waiting = [at for at, is_drained in self.marks.values() if not is_drained]
        now = min(waiting) if waiting else max(at for at, _ in self.marks.values())
        self.watermark_ms = now if self.watermark_ms is None else max(now, self.watermark_ms)

    def _clock(self, topic: str, partition: int) -> Any:
        return "one" if self.one_clock else (topic, partition)

    # ---------------------------------------------------------------------------------------------------- reports

    def report(
        self, pack: CityPack, topic: str, partition: int, offset: int, came_ms: int, message: Mapping[str, Any],
        source: str, east_m: float | None, founded: str | None,
    ) -> Answer:  # fmt: skip
        label = message.get("alarm") or message.get("event_type") or message["category"]
        category = pack.categories[pack.category_of(source, label)]
        time_ms = message["time"]
        if time_ms > came_ms + FUTURE_MS:
            return Answer("future_time")
        if time_ms < came_ms - TOO_OLD_MS:
            return Answer("too_old")
        if message.get("state") == "cleared":
            return Answer("quiet")
        mark_ms = self.read_up_to[self._clock(topic, partition)]
        self.mark(topic, partition, mark_ms, False)
        now = self.watermark_ms
        assert now is not None

        key = (source, message.get("platform") or "", message["id"])
        device = message.get("device_id") or message.get("camera_id")
        self.newest_mark_ms = max(self.newest_mark_ms, mark_ms)
        if device and time_ms >= self.newest_mark_ms - TOO_OLD_MS:
            platform, first = self.copies.setdefault((source, device, category.code, time_ms // 1000), (key[1], key))
            if platform != key[1]:
                key = first
        origin = (topic, partition, offset)
        known = self.reports.get((category.group, key))
        if known is not None and known["last_ms"] >= now - TOO_OLD_MS:
            incident_id = known["incident_id"]
            if known["origins"].get(origin, now - TOO_OLD_MS - 1) >= now - TOO_OLD_MS:
                return Answer("redelivered", incident_id)
            known["origins"][origin] = came_ms
            known["last_ms"] = max(known["last_ms"], came_ms)
            if incident_id is not None:
                incident = self.incidents[incident_id]
                incident.fields["repeat_count"] += 1
                incident.changed(tell=False)
            return Answer("repeat", incident_id, rule="same_report")
        known = self.reports[category.group, key] = {
            "last_ms": came_ms, "origins": {origin: came_ms}, "incident_id": None
        }  # fmt: skip
        if not category.event:
            return Answer("not_an_event", rule="not_an_event")

        held_from = now - LATENESS_MS
        accuracy_m = message.get("accuracy_m", pack.sources[source].accuracy_m)
        near = sorted(
            (how == "recurrence", abs(east_m - one.east_m), one.opened_ms, name, how)
            for name, one in self.incidents.items()
            if one.group == category.group
            and east_m is not None
            and one.east_m is not None
            and abs(east_m - one.east_m) <= one.radius_m + min(accuracy_m, one.accuracy_cap_m)
            and (how := _how(one, time_ms, held_from)) is not None
        )
        late_s = (now - time_ms) / 1000 if time_ms < held_from else None
        matches = [match for match in near if not match[0]]
        evidence = {"source": source, "report_id": message["id"]}
        if matches:
            _, distance_m, _, name, how = matches[0]
            incident = self.incidents[name]
            known["incident_id"] = name
            gap_s = abs(time_ms - incident.last_ms) / 1000
            if how == "reopened":
                incident.fields["status"] = "open"
                incident.ended_ms = None
            is_new = source not in incident.fields["sources"]
            incident.fields["sources"][source] = incident.fields["sources"].get(source, 0) + 1
            incident.first_ms, incident.last_ms = min(incident.first_ms, time_ms), max(incident.last_ms, time_ms)
            incident.fields |= {
                "version": incident.fields["version"] + 1,
                "report_count": incident.fields["report_count"] + 1,
                "first_report_at": written(incident.first_ms),
                "last_report_at": written(incident.last_ms),
                "updated_at": written(came_ms),
                "closed_at": None if how == "reopened" else incident.fields["closed_at"],
                "evidence": [incident.fields["evidence"][0], evidence],
            }
            incident.changed(tell=is_new or how == "reopened")
            outcome = "late" if late_s is not None else "reopened" if how == "reopened" else "joined"
            return Answer(outcome, name, distance_m, gap_s, _RULES[how], late_s)

        assert founded is not None, "the service founded nothing"
        assert founded not in self.incidents, "an incident's name is its own"
        past = near[0][3] if near else None
        if past is not None:
            self.incidents[past].has_recurred = True
        west = east_m is not None and east_m <= 0
        codes = (None,) * 4 if east_m is None else ("990101001001002", "990101001001", "990101001", "990101")
        codes = codes if west or east_m is None else ("990102", None, None, "990102")
        incident = self.incidents[founded] = Known(
            {
                "incident_id": founded, "version": 1, "status": "open", "category": category.code,
                "category_name": category.name, "priority": category.priority, "department": category.department,
                **dict(zip(("grid_code", "community_code", "street_code", "county_code"), codes, strict=True)),
                "accuracy_m": None if east_m is None else accuracy_m,
                "opened_at": written(time_ms), "first_report_at": written(time_ms), "last_report_at": written(time_ms),
                "updated_at": written(came_ms), "closed_at": None, "report_count": 1, "repeat_count": 0,
                "sources": {source: 1}, "recurrence_of": past, "pack_version": pack.version, "evidence": [evidence],
            },
            category.group, east_m, category.radius_m, category.accuracy_cap_m,
            round(category.window_s * 1000), round(category.reopen_s * 1000), time_ms, time_ms, time_ms,
        )  # fmt: skip
        incident.changed(tell=True)
        known["incident_id"] = founded
        rule = "no_position" if east_m is None else "recurrence" if past else "nothing_near"
        return Answer("opened" if late_s is None else "late", founded, None, None, rule, late_s, past)

    # --------------------------------------------------------------------------------------------------- feedback

    def feedback(self, offset: int, came_ms: int, message: Mapping[str, Any], city: str) -> Answer:
        name, time_ms = message["incident_id"], message["time"]
        if not name.startswith(city + "-"):
            return Answer("unknown_incident")
        if time_ms > came_ms + FUTURE_MS:
            return Answer("future_time")
        if time_ms < came_ms - TOO_OLD_MS:
            return Answer("too_old")
        now = came_ms if self.watermark_ms is None else max(came_ms, self.watermark_ms)
        horizon_ms = now - TOO_OLD_MS
        key = (message.get("platform") or "", message["id"], name)
        if self.heard.get((key, offset), horizon_ms - 1) >= horizon_ms:
            return Answer("redelivered")
        self.heard[key, offset] = came_ms
        incident = self.incidents.get(name)
        if incident is None:
            return Answer("unknown_incident")
        if self.applied.get(key, horizon_ms - 1) >= horizon_ms:
            return Answer("repeated", name)
        status = next_status(incident.fields["status"], message["action"])
        if status is None:
            return Answer("illegal_transition")
        self.applied[key] = came_ms
        incident.ended_ms = time_ms if status in ("closed", "rejected") else None
        incident.fields |= {
            "version": incident.fields["version"] + 1, "status": status, "updated_at": written(came_ms),
            "closed_at": written(time_ms) if status == "closed" else None,
        }  # fmt: skip
        incident.changed(tell=True)
        return Answer("applied", name)


_RULES = {"in window": "nearest_open", "before its end": "nearest_ended", "reopened": "reopened"}


def _how(one: Known, time_ms: int, held_from: int) -> str | None:
    """How a report near an incident comes together with it; None if not at all."""
    window_start, window_end = one.last_ms - one.window_ms, one.last_ms + one.window_ms
    covers = window_start <= time_ms <= window_end and window_end >= held_from
    if one.ended_ms is None:
        if covers:
            return "in window"
        until = window_end + one.reopen_ms
        return "recurrence" if window_end < time_ms <= until and held_from <= until and not one.has_recurred else None
    if time_ms <= one.ended_ms:
        in_hand = window_start <= time_ms and held_from <= one.ended_ms and not one.has_recurred
        return "before its end" if covers or in_hand else None
    until = one.ended_ms + one.reopen_ms
    if one.has_recurred or max(time_ms, held_from) > until + YEAR_MS:
        return None
    return "reopened" if time_ms <= until else "recurrence"
