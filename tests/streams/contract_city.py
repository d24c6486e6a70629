"""The contract as a city office would keep it by hand: dictionaries, one message at a time, nothing forgotten.

The oracle of the whole pipeline.  It reads messages, not columns, and knows nothing of shards, blocks or kernels.  What
it takes from the service is the names of incidents, for a hash cannot be known beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from city_scenario import METERS_A_DEGREE
from dedupe_definition import distance_cm2, gap_points, log_points

from streams.pack import Category, CityPack

FUTURE_MS, TOO_OLD_MS, LATENESS_MS, YEAR_MS = 600_000, 30 * 86_400_000, 600_000, 366 * 86_400_000
FORWARD = ["open", "accepted", "dispatched", "disposed", "closed"]
STEP = {"accept": "accepted", "dispatch": "dispatched", "dispose": "disposed", "close": "closed"}


def next_status(status: str, action: str) -> str | None:
    """What an action leads to; None if it may not follow."""
    status = "open" if status == "suspected" else status
    if action == "reject":
        return "rejected" if status in ("open", "accepted") else None
    if action == "reopen":
        return "open" if status in ("closed", "rejected") else None
    if status == "rejected" or FORWARD.index(STEP[action]) <= FORWARD.index(status):
        return None
    return STEP[action]


def log_odds(confidence: float) -> int:
    """In thousandths; nobody is believed more than 0.99 or less than 0.01."""
    share = min(max(confidence, 0.01), 0.99)
    return round(1000 * math.log(share / (1 - share)))


def written(time_ms: int) -> str:
    at = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03}Z"


@dataclass
class Known:
    """An incident, with the terms it was founded under."""

    fields: dict[str, Any]
    category: Category
    east_m: float | None
    accuracy_m: float
    opened_ms: int
    first_ms: int
    last_ms: int
    ended_ms: int | None = None
    has_recurred: bool = False
    devices: set[str] = field(default_factory=set)
    witnesses: dict[Any, tuple[int, list[int]]] = field(default_factory=dict)
    """Who saw it: when he was heard last, and the log-odds of each of his reports."""
    former: list[list[int]] = field(default_factory=list)
    """The log-odds of witnesses who were forgotten."""
    states: list[dict[str, Any]] = field(default_factory=list)
    """Every state since the last batch; `must_tell` are the numbers of those that may not be left out."""
    must_tell: set[int] = field(default_factory=set)

    def changed(self, *, tell: bool) -> None:
        if tell:
            self.must_tell.add(len(self.states))
        self.states.append({**self.fields, "sources": dict(self.fields["sources"])})

    def hear(self, who: Any, came_ms: int, confidence: float | None, now: int) -> None:
        """A report is one witness's; odds of witnesses add up, each by the most he was believed."""
        last_ms, odds = self.witnesses.get(who, (came_ms, []))
        if last_ms < now - TOO_OLD_MS:
            self.former.append(odds)
            last_ms, odds = came_ms, []
        self.witnesses[who] = (max(last_ms, came_ms), odds)
        if confidence is not None:
            odds.append(log_odds(confidence))
        all_odds = [*self.former, *(said for _, said in self.witnesses.values())]
        best = [max(said) for said in all_odds if said]
        together = sum(one for one in best if one > 0) if max(best, default=0) >= 0 else max(best)
        self.fields["witness_count"] = len(all_odds)
        self.fields["confidence"] = round(1 / (1 + math.exp(-together / 1000)), 3) if best else None
        self.odds = together if best else None

    odds: int | None = None

    @property
    def is_doubtful(self) -> bool:
        least = self.category.confirm_below
        return least is not None and self.odds is not None and self.odds < log_odds(least)

    @property
    def window_ms(self) -> int:
        return round(self.category.window_s * 1000)

    @property
    def reopen_ms(self) -> int:
        return round(self.category.reopen_s * 1000)

    def is_near(self, east_m: float, accuracy_m: float) -> bool:
        vague_m = max(accuracy_m, self.accuracy_m)
        assert self.east_m is not None
        return abs(east_m - self.east_m) <= self.category.radius_m + min(vague_m, self.category.accuracy_cap_m)

    def score(self, how: str, time_ms: int, east_m: float, accuracy_m: float, category: Category, device: str) -> int:
        """By the table of the contract, of packs that say nothing of how evidence is weighed."""
        of = self.category
        cm2 = distance_cm2(_where(east_m), _where(self.east_m))
        sigma2 = max(round(accuracy_m * 100) ** 2 + round(self.accuracy_m * 100) ** 2 + round(of.radius_m * 30) ** 2, 1)
        nearness = round(-100 * math.log10(2 * math.pi / (math.pi * of.radius_m**2 * 1e4))) - log_points(sigma2)
        gap_ms = 0
        if how in ("in window", "before its end"):
            over_ms = self.last_ms if self.ended_ms is None else max(self.last_ms, self.ended_ms)
            gap_ms = max(0, time_ms - over_ms, self.first_ms - time_ms)
        elif how == "reopened":
            assert self.ended_ms is not None
            gap_ms = time_ms - self.ended_ms
        score = nearness - cm2 * 21_715 // (sigma2 * 1000)
        score -= gap_points(gap_ms, self.window_ms + self.last_ms - self.first_ms)
        score += 0 if category.code == of.code else -52
        return score + (50 if device in self.devices or cm2 <= 200**2 else 0)

    def anchor(self, east_m: float | None, accuracy_m: float) -> None:
        """Whoever is at most half as vague knows better."""
        if east_m is not None and 2 * accuracy_m <= self.accuracy_m != 0:
            self.east_m, self.accuracy_m = east_m, accuracy_m
            self.fields |= _place(east_m, accuracy_m)

    def settle(self, *, may_doubt: bool) -> bool:
        """Whether it was suspected and is no longer."""
        if may_doubt and self.is_doubtful:
            self.fields["status"] = "suspected"
        if self.fields["status"] != "suspected" or self.is_doubtful:
            return False
        self.fields["status"] = "open"
        return True


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
        said: Any = (label, *(message.get(name) for name in ("lon", "lat", "crs", "asset_id", "address", "text")))
        self.newest_mark_ms = max(self.newest_mark_ms, mark_ms)
        if device and time_ms >= self.newest_mark_ms - TOO_OLD_MS:
            platform, first = self.copies.setdefault((source, device, category.code, time_ms // 1000), (key[1], key))
            if platform != key[1]:
                key, said = first, None  # the same in another platform's words
        origin = (topic, partition, offset)
        known = self.reports.get((category.group, key))
        if known is not None and known["last_ms"] >= now - TOO_OLD_MS:
            incident_id = known["incident_id"]
            if known["origins"].get(origin, now - TOO_OLD_MS - 1) >= now - TOO_OLD_MS:
                return Answer("redelivered", incident_id)
            known["origins"][origin] = came_ms
            known["last_ms"] = max(known["last_ms"], came_ms)
            amends = None not in (said, known["said"]) and said != known["said"]
            known["said"] = said or known["said"]
            if incident_id is not None:
                incident = self.incidents[incident_id]
                if amends:
                    self._amend(incident, pack, category, came_ms, message, source, east_m, known["has_founded"])
                else:
                    incident.fields["repeat_count"] += 1
                incident.changed(tell=amends)
            if incident_id is not None or not amends or not category.event:
                return Answer("amended" if amends else "repeat", incident_id, rule="same_report")
        else:
            known = self.reports[category.group, key] = {
                "last_ms": came_ms, "origins": {origin: came_ms}, "incident_id": None, "said": said,
                "has_founded": False,
            }  # fmt: skip
        if not category.event:
            return Answer("not_an_event", rule="not_an_event")

        held_from = now - LATENESS_MS
        accuracy_m = message.get("accuracy_m", pack.sources[source].accuracy_m)
        near = sorted(
            (
                how == "recurrence",
                -one.score(how, time_ms, east_m, accuracy_m, category, device or ""),
                distance_cm2(_where(east_m), _where(one.east_m)),
                one.opened_ms,
                name,
                how,
            )
            for name, one in self.incidents.items()
            if one.category.group == category.group
            and east_m is not None
            and one.east_m is not None
            and one.is_near(east_m, accuracy_m)
            and (how := _how(one, time_ms, held_from)) is not None
        )
        late_s = (now - time_ms) / 1000 if time_ms < held_from else None
        matches = [match for match in near if not match[0]]
        evidence = {"source": source, "report_id": message["id"]}
        name_of_witness = {"iot": "device_id", "video": "camera_id", "hotline": "caller", "patrol": "worker_id"}
        who = message.get(name_of_witness[source]) or ("nobody", *key, came_ms, offset)
        given = category.confidence.get(source, pack.sources[source].confidence)
        believed = min((one for one in (given, message.get("confidence")) if one is not None), default=None)
        if matches:
            *_, name, how = matches[0]
            incident = self.incidents[name]
            assert east_m is not None
            assert incident.east_m is not None
            distance_m = abs(east_m - incident.east_m)
            incident.anchor(east_m, accuracy_m)
            incident.devices |= {device} if device else set()
            known["incident_id"] = name
            gap_s = abs(time_ms - incident.last_ms) / 1000
            was_rejected = how == "reopened" and incident.fields["status"] == "rejected"
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
            incident.hear((source, who), came_ms, believed, now)
            is_confirmed = incident.settle(may_doubt=was_rejected)
            incident.changed(tell=is_new or is_confirmed or how == "reopened")
            outcome = "late" if late_s is not None else "reopened" if how == "reopened" else "joined"
            return Answer(outcome, name, distance_m, gap_s, _RULES[how], late_s)

        assert founded is not None, "the service founded nothing"
        assert founded not in self.incidents, "an incident's name is its own"
        past = near[0][4] if near else None
        if past is not None:
            self.incidents[past].has_recurred = True
        incident = self.incidents[founded] = Known(
            {
                "incident_id": founded, "version": 1, "status": "open", **_kind(pack, category),
                **_place(east_m, accuracy_m),
                "opened_at": written(time_ms), "first_report_at": written(time_ms), "last_report_at": written(time_ms),
                "updated_at": written(came_ms), "closed_at": None, "report_count": 1, "repeat_count": 0,
                "sources": {source: 1}, "recurrence_of": past, "merged_into": None, "evidence": [evidence],
            },
            category, east_m, accuracy_m, time_ms, time_ms, time_ms,
            devices={device} if device and east_m is not None else set(),
        )  # fmt: skip
        incident.hear((source, who), came_ms, believed, now)
        incident.settle(may_doubt=True)
        incident.changed(tell=True)
        known |= {"incident_id": founded, "has_founded": True}
        rule = "no_position" if east_m is None else "recurrence" if past else "nothing_near"
        return Answer("opened" if late_s is None else "late", founded, None, None, rule, late_s, past)

    @staticmethod
    def _amend(
        incident: Known, pack: CityPack, category: Category, came_ms: int, message: Mapping[str, Any], source: str,
        east_m: float | None, has_founded: bool,
    ) -> None:  # fmt: skip
        """A report says something else; the one that founded its incident says what it is, and where if nobody knew."""
        incident.fields |= {"version": incident.fields["version"] + 1, "updated_at": written(came_ms)}
        if not has_founded:
            return
        if category.event:
            incident.fields |= _kind(pack, category)
            incident.category = category
        if incident.east_m is None and east_m is not None:
            incident.east_m = east_m
            incident.accuracy_m = message.get("accuracy_m", pack.sources[source].accuracy_m)
            incident.fields |= _place(east_m, incident.accuracy_m)
        incident.settle(may_doubt=False)

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
        merged_into = message.get("duplicate_of") if status in ("closed", "rejected") else None
        incident.fields |= {
            "version": incident.fields["version"] + 1, "status": status, "updated_at": written(came_ms),
            "closed_at": written(time_ms) if status == "closed" else None, "merged_into": merged_into,
        }  # fmt: skip
        incident.changed(tell=True)
        return Answer("applied", name)


def _kind(pack: CityPack, category: Category) -> dict[str, Any]:
    return {
        "category": category.code, "category_name": category.name, "priority": category.priority,
        "department": category.department, "pack_version": pack.version,
    }  # fmt: skip


def _place(east_m: float | None, accuracy_m: float) -> dict[str, Any]:
    west = east_m is not None and east_m <= 0
    codes = (None,) * 4 if east_m is None else ("990101001001002", "990101001001", "990101001", "990101")
    codes = codes if west or east_m is None else ("990102", None, None, "990102")
    return {
        **dict(zip(("grid_code", "community_code", "street_code", "county_code"), codes, strict=True)),
        "accuracy_m": None if east_m is None else accuracy_m,
    }


def _where(east_m: float | None) -> tuple[int, int]:
    assert east_m is not None
    return round(east_m / METERS_A_DEGREE[1] * 1e7), 10_000


_RULES = {"in window": "best_open", "before its end": "best_ended", "reopened": "reopened"}


def _how(one: Known, time_ms: int, held_from: int) -> str | None:
    """How a report near an incident comes together with it; None if not at all."""
    if one.fields.get("merged_into"):
        return None
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
