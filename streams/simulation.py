"""A simulated city day with known truth: what happens, and what each of the four sources reports of it.

First the events are drawn (where, what, how long they can be seen), then every source reports of them what it would
notice, with its own errors (`streams.error_model`), then the messages are given ids, broken, batched by gateways and
put in order of arrival.  One generator feeds all of it, in one fixed order, so the same seed gives the same bytes.

The truth names every report once.  A *cluster* is a true event; a false alarm is a cluster of its own, for it must not
be joined to anything; a consultation is no event and has none.  Broken messages, ordinary readings and cleared alarms
are no reports and do not stand in it.
"""

from __future__ import annotations

import csv
import io
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import orjson

from geo.datum import from_wgs84, to_wgs84
from geo.plane import distance_m, metres_per_degree
from streams.error_model import ErrorModel, HotlineModel, MachineModel, PatrolModel, PeopleModel, SourceModel
from streams.messages import SOURCES, TOPIC_OF_SOURCE, Reason
from streams.pack import Category, CityPack, Device
from streams.recording import RecordedMessage

TRUTH_COLUMNS = (
    "source",
    "report_id",
    "cluster_id",
    "is_duplicate",
    "parent_id",
    "link_quality",
    "event_category",
    "lon",
    "lat",
)
GOOD_LINK_M = 300.0
"""A duplicate placed further than this from its parent is a `far` link: no rule by distance can find it."""
MAX_EVENTS = 1_000_000
"""All messages of a simulation are held at once, so that gateways can batch and broken ones can be mixed in."""

_T = TypeVar("_T")
_TRIES = 50
# No operator gives numbers of 154-0000 to callers.
_CALLER = "1540000{:04d}"
_ID_PREFIX = {"iot": "S", "video": "V", "hotline": "H", "patrol": "P"}
_LABEL_FIELD = {"iot": "alarm", "video": "event_type", "hotline": "category", "patrol": "category"}
_WITNESS_FIELD = {"iot": "device_id", "video": "camera_id", "hotline": "caller", "patrol": "worker_id"}
_REQUIRED = {
    "iot": ("time", "device_id"),
    "video": ("time", "camera_id", "event_type", "confidence"),
    "hotline": ("time", "category"),
    "patrol": ("time", "worker_id", "category", "lon", "lat"),
}


@dataclass(frozen=True, slots=True)
class TruthRow:
    """What is true of one report."""

    source: str
    report_id: str
    cluster_id: str
    """Empty: no event (a consultation)."""
    is_duplicate: int
    """1 for every report of an event but the first to arrive."""
    parent_id: str
    """The first report of the event to arrive, of whatever source (no two sources share an id); empty for itself."""
    link_quality: str
    """``good`` (both placed within `GOOD_LINK_M` of another), ``far``, ``none`` (one has no coordinates)."""
    event_category: str
    """Code of what really happened; empty for a false alarm."""
    lon: float | None
    lat: float | None
    """Degrees, WGS-84, where it really is."""


@dataclass(slots=True)
class Simulation:
    """A simulated stretch of time."""

    messages: list[RecordedMessage] = field(default_factory=list)
    """In order of arrival, with timestamps and offsets."""
    truth: list[TruthRow] = field(default_factory=list)
    """In order of arrival, one row a report."""
    events: int = 0
    """What happened, reported or not."""
    events_reported: int = 0
    storms: int = 0
    elements: Counter[str] = field(default_factory=Counter)
    """Elements of each source, as a replay of the recording counts them."""
    reports: Counter[str] = field(default_factory=Counter)
    """Distinct reports of each source, as in the truth."""
    quiet: int = 0
    """Ordinary readings and cleared alarms."""
    repeats: int = 0
    """Reports sent again under their own id."""
    broken: Counter[str] = field(default_factory=Counter)
    """Elements that must become dead letters, by reason."""
    errors: Counter[str] = field(default_factory=Counter)
    """Reports with each kind of error: ``late``, ``mislabelled``, ``false_alarm`` and so on."""


@dataclass(slots=True)
class _Event:
    number: int
    category: Category
    lon: float
    lat: float
    start_ms: int
    end_ms: int
    holds_its_place_until_ms: int
    """Until then no other event of its group comes too near."""
    crowd: float

    @property
    def cluster_id(self) -> str:
        return f"e{self.number:06d}"


class _Standing:
    """The events of one group that hold their place, by square: a full city is searched as fast as an empty one."""

    def __init__(self, apart_radii: float, reach_m: float, bounds: tuple[float, float, float, float]) -> None:
        self._apart_radii = apart_radii
        _, south, _, north = bounds
        # Squares at least as wide as the largest distance that is asked for, wherever in the city.
        m_lon, m_lat = metres_per_degree(max(south, north, key=abs))
        self._width_deg = max(reach_m, 1.0) * 1.01 / float(m_lon)
        self._height_deg = max(reach_m, 1.0) * 1.01 / float(m_lat)
        self._events: defaultdict[tuple[int, int], list[_Event]] = defaultdict(list)

    def _square(self, lon: float, lat: float) -> tuple[int, int]:
        return math.floor(lon / self._width_deg), math.floor(lat / self._height_deg)

    def add(self, event: _Event) -> None:
        self._events[self._square(event.lon, event.lat)].append(event)

    def is_apart(self, lon: float, lat: float, radius_m: float, time_ms: int) -> bool:
        """Whether no event holds a place too near; forgets those that no longer hold theirs."""
        column, row = self._square(lon, lat)
        for square in ((column + i, row + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
            if square not in self._events:
                continue
            here = [event for event in self._events[square] if event.holds_its_place_until_ms >= time_ms]
            self._events[square] = here
            for event in here:
                apart_m = self._apart_radii * max(radius_m, event.category.radius_m)
                if _metres(lon, lat, event.lon, event.lat) <= apart_m:
                    return False
        return True


@dataclass(slots=True)
class _Report:
    """A message to be: all but its id, and what is true of it."""

    source: str
    time_ms: int
    arrives_ms: int
    fields: dict[str, Any]
    cluster_id: str = ""
    event_category: str = ""
    true_at: tuple[float, float] | None = None
    said_at: tuple[float, float] | None = None
    """Where its coordinates lie, WGS-84; None where it has none."""
    sent_again_ms: int | None = None
    is_report: bool = True
    errors: tuple[str, ...] = ()
    id: str = ""


@dataclass(slots=True)
class _Element:
    """One JSON value on its way to the broker."""

    arrives_ms: int
    source: str
    key: str
    value: bytes
    gateway: int | None = None
    """A gateway that batches; None sends it alone."""
    report: _Report | None = None
    """What it says; None for what is broken."""
    broken: Reason | None = None


def simulate(
    pack: CityPack,
    model: ErrorModel,
    *,
    seed: int,
    start: datetime,
    hours: float,
    rate: float = 1.0,
    advance: Callable[[int], None] | None = None,
) -> Simulation:
    """Draw a stretch of time in a city.

    Memory and time grow with the messages: about 2 kB and 0.2 ms each.

    Parameters
    ----------
    pack : CityPack
        Where it happens, what is reported as what, which devices and cameras there are.
    model : ErrorModel
        How much happens and how sources err.
    seed : int
        Not negative.  The same seed gives the same messages and the same truth.
    start : datetime
        With an offset, which is also the local time of the day's waves.
    hours : float
        Greater than 0.  What would arrive later is left out, of the truth too.
    rate : float
        Multiplies events, storms' events, readings; greater than 0.
    advance : callable, optional
        Told how many events were reported on since it was last told.

    Raises
    ------
    ValueError
        If ``start`` has no offset, ``hours`` or ``rate`` is not positive, more than `MAX_EVENTS` are to be expected, or
        the pack has no category with an event.
    """
    if start.utcoffset() is None:
        raise ValueError("start needs an offset, as in 2026-06-01T00:00:00+08:00")
    if not (hours > 0 and rate > 0 and math.isfinite(hours) and math.isfinite(rate)):
        raise ValueError("hours and rate must be greater than 0")
    expected = model.events.per_day * rate * hours / 24
    if expected > MAX_EVENTS:
        raise ValueError(f"{expected:,.0f} events are more than {MAX_EVENTS:,}; take fewer hours or a smaller rate")
    if not any(category.event for category in pack.categories):
        raise ValueError("the pack's catalogue has no category with event = true")
    return _Day(pack, model, seed, start, hours, rate).run(advance or (lambda _: None))


def truth_csv(rows: Iterable[TruthRow]) -> str:
    """The truth as `citybrain evaluate` reads it, columns as in `TRUTH_COLUMNS`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(TRUTH_COLUMNS)
    for row in rows:
        position = ("", "") if row.lon is None or row.lat is None else (f"{row.lon:.6f}", f"{row.lat:.6f}")
        link = (row.is_duplicate, row.parent_id, row.link_quality)
        writer.writerow((row.source, row.report_id, row.cluster_id, *link, row.event_category, *position))
    return out.getvalue()


class _Day:
    """The state of one simulation: the generator, what is alive, and what was reported so far."""

    def __init__(
        self, pack: CityPack, model: ErrorModel, seed: int, start: datetime, hours: float, rate: float
    ) -> None:
        self.pack = pack
        self.model = model
        self.rate = rate
        self.hours = hours
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.zone = timezone(start.utcoffset() or timedelta())
        self.start_ms = round(start.timestamp() * 1000)
        self.end_ms = self.start_ms + round(hours * 3_600_000)
        self.reports: list[_Report] = []
        self._uniform: list[tuple[float, float]] = []
        self._workers: dict[int, str] = {}
        self._false_alarms = 0
        # What cannot be reported under any label of its own is sent as its code, which every source may send.
        self._labels: dict[str, dict[str, tuple[str, ...]]] = {
            source: {c.code: c.labels[source] for c in pack.categories if c.labels.get(source)} for source in SOURCES
        }
        self._by_code = {category.code: category for category in pack.categories}
        self._in_group: defaultdict[str, list[str]] = defaultdict(list)
        for category in pack.categories:
            if category.event:
                self._in_group[category.group].append(category.code)
        self._set_up_devices()
        self._place_lon = np.array([place.lon for place in pack.places])
        self._place_lat = np.array([place.lat for place in pack.places])

    def _set_up_devices(self) -> None:
        devices = sorted(self.pack.devices.values(), key=lambda device: device.id)
        if devices:
            # What is registered outside the city could only send dead letters.
            inside = self.pack.grid.locate([d.lon for d in devices], [d.lat for d in devices]) >= 0
            devices = [device for device, here in zip(devices, inside.tolist(), strict=True) if here]
        self.cameras = [device for device in devices if device.kind == "camera"]
        self.sensors = [device for device in devices if device.kind != "camera"]
        iot = self.model.iot
        self._gateway = {sensor.id: k // iot.gateway_devices for k, sensor in enumerate(self.sensors)}
        gateways = len(self.sensors) // iot.gateway_devices + 1
        # Spread evenly, not drawn: a handful of gateways would make the number of messages a matter of luck.
        self._batches = [
            math.floor((k + 1) * iot.gateways_batch) > math.floor(k * iot.gateways_batch) for k in range(gateways)
        ]
        self._senses: dict[str, tuple[str, ...]] = {}
        for sensor in self.sensors:
            codes = [*iot.senses.get(sensor.kind, []), *iot.senses.get("any", [])]
            self._senses[sensor.kind] = tuple(code for code in codes if self._labels["iot"].get(code))
        self._sensors_of: defaultdict[str, list[Device]] = defaultdict(list)
        for sensor in self.sensors:
            for code in self._senses[sensor.kind]:
                self._sensors_of[code].append(sensor)

    def run(self, advance: Callable[[int], None]) -> Simulation:
        result = Simulation()
        planned, result.storms = self._plan()
        standing: dict[str, _Standing] = {}
        widest_m: defaultdict[str, float] = defaultdict(float)
        for category in self.pack.categories:
            widest_m[category.group] = max(widest_m[category.group], category.radius_m)
        apart = self.model.events.apart_radii
        for start_ms, category, crowd in planned:
            group = category.group
            if group not in standing:
                standing[group] = _Standing(apart, widest_m[group] * apart, self.pack.grid.bounds)
            event = self._place(start_ms, category, crowd, standing[group], result.events)
            if event is not None:
                result.events += 1
                standing[group].add(event)
                self._call(event)
                self._walk_past(event)
                self._watch(event)
                self._sense(event)
            advance(1)
        self._report_nothing()
        self._ask()
        self._read()
        self._finish(result)
        return result

    # ------------------------------------------------------------------------------------------------ chance

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _pick(self, things: Sequence[_T]) -> _T:
        return things[int(self.rng.integers(len(things)))]

    def _wait_ms(self, mean_s: float) -> int:
        return round(float(self.rng.exponential(mean_s)) * 1000)

    def _between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def _weighted(self, weights: Mapping[str, float]) -> str:
        names = list(weights)
        sums = list(accumulate(weights.values()))
        return names[min(bisect_right(sums, self._between(0, sums[-1])), len(names) - 1)]

    # ---------------------------------------------------------------------------------------- what happens

    def _hour_of(self, time_ms: int) -> int:
        return datetime.fromtimestamp(time_ms / 1000, self.zone).hour

    def _times(self, per_day: float) -> list[int]:
        """Moments of a Poisson process that follows the hours of the day."""
        weights = self.model.events.hours
        times: list[int] = []
        slot_ms = self.start_ms
        while slot_ms < self.end_ms:
            next_ms = min((slot_ms // 3_600_000 + 1) * 3_600_000, self.end_ms)
            expected = per_day * weights[self._hour_of(slot_ms)] / sum(weights) * (next_ms - slot_ms) / 3_600_000
            count = int(self.rng.poisson(expected))
            times += np.sort(self.rng.integers(slot_ms, next_ms, count)).tolist()
            slot_ms = next_ms
        return times

    def _plan(self) -> tuple[list[tuple[int, Category, float]], int]:
        """When something of which category starts, in order of time, and how many storms that includes."""
        events, storm = self.model.events, self.model.storm
        weights = {c.code: events.weights.get(c.code, 1.0) for c in self.pack.categories if c.event}
        planned: list[tuple[int, Category, float]] = []
        if sum(weights.values()) > 0:
            planned = [
                (time_ms, self._by_code[self._weighted(weights)], 1.0)
                for time_ms in self._times(events.per_day * self.rate)
            ]
        wet = self._by_code.get(storm.category)
        storms = 0
        if storm.per_day > 0 and wet is not None and wet.event:
            storms = max(1, round(storm.per_day * self.hours / 24))
            for _ in range(storms):
                # Early enough for most of it to be seen before the end.
                first_ms = self.start_ms + round(self._between(0.05, 0.75) * (self.end_ms - self.start_ms))
                low, high = storm.events
                for _ in range(round(int(self.rng.integers(low, high + 1)) * self.rate)):
                    planned.append((first_ms + round(self._between(0, storm.lasts_s) * 1000), wet, storm.crowd))
        planned.sort(key=lambda item: item[0])
        return planned, storms

    def _place(
        self, start_ms: int, category: Category, crowd: float, standing: _Standing, number: int
    ) -> _Event | None:
        """An event apart from those of its group that can still be seen; None where the city is full of them."""
        model = self.model.events
        mean_s = model.lasting_windows * category.window_s
        lasts_s = min(max(float(self.rng.exponential(mean_s)), 300.0), model.lasting_max_s)
        for _ in range(_TRIES):
            lon, lat = self._somewhere(category)
            if not self._is_in_city(lon, lat):
                continue
            if standing.is_apart(lon, lat, category.radius_m, start_ms):
                end_ms = start_ms + round(lasts_s * 1000)
                until_ms = end_ms + round(model.apart_windows * category.window_s * 1000)
                return _Event(number, category, lon, lat, start_ms, end_ms, until_ms, crowd)
        return None

    def _somewhere(self, category: Category) -> tuple[float, float]:
        sensors = self._sensors_of.get(category.code)
        if sensors and self._chance(self.model.iot.at_device):
            sensor = self._pick(sensors)
            return self._moved(sensor.lon, sensor.lat, 4.0)
        if self.pack.places and self._chance(self.model.events.near_place):
            place = self._pick(self.pack.places)
            return self._moved(place.lon, place.lat, self.model.events.near_place_m)
        return self._anywhere()

    def _anywhere(self) -> tuple[float, float]:
        """A point of the city, all of it equally likely."""
        west, south, east, north = self.pack.grid.bounds
        while not self._uniform:
            lon, lat = self.rng.uniform(west, east, 1024), self.rng.uniform(south, north, 1024)
            inside = np.flatnonzero(self.pack.grid.locate(lon, lat) >= 0)
            self._uniform = list(zip(lon[inside].tolist(), lat[inside].tolist(), strict=True))
        return self._uniform.pop()

    def _moved(self, lon: float, lat: float, sigma_m: float) -> tuple[float, float]:
        m_lon, m_lat = metres_per_degree(lat)
        east_m, north_m = self.rng.normal(0.0, sigma_m, 2).tolist()
        return lon + east_m / float(m_lon), lat + north_m / float(m_lat)

    def _is_in_city(self, lon: float, lat: float) -> bool:
        return bool(self.pack.grid.locate([lon], [lat])[0] >= 0)

    # ---------------------------------------------------------------------------------------- how sources err

    def _label(self, source: str, category: Category, model: SourceModel) -> tuple[str, str | None]:
        """The label the source gives it, and the kind of error if it is wrong."""
        labels = self._labels[source]
        chance = self._between(0, 1)
        if isinstance(model, HotlineModel) and self.pack.sources[source].fallback_category is not None:
            if chance < model.label_unknown:
                return f"待分类{int(self.rng.integers(100)):02d}", "label_unknown"
            chance -= model.label_unknown
        code, error = category.code, None
        if chance < model.mislabelled:
            neighbours = [c for c in self._in_group[category.group] if c != code and c in labels]
            if neighbours:
                code, error = self._pick(neighbours), "mislabelled"
        elif chance < model.mislabelled + model.mislabelled_far:
            others = [c for c in labels if self._by_code[c].event and self._by_code[c].group != category.group]
            if others:
                code, error = self._pick(others), "mislabelled_far"
        return self._pick(labels[code]), error

    def _coordinates(
        self, source: str, model: SourceModel, lon: float, lat: float, low_m: float, high_m: float
    ) -> tuple[dict[str, Any], tuple[float, float], str | None]:
        """Fields that say roughly where, where they really lie in WGS-84, and the kind of error if it is one."""
        entry_crs = self.pack.sources[source].crs
        declared = self._weighted(model.datums)
        crs = entry_crs if declared == "default" else declared
        undeclared = self._chance(model.datum_undeclared)
        sigma_m = math.exp(self._between(math.log(low_m), math.log(high_m)))
        told = self._chance(model.accuracy_told)
        for attempt in range(_TRIES):
            # The first try that stays in the city; an address of this city is never geocoded into the next.
            near = self._moved(lon, lat, sigma_m) if attempt < _TRIES - 1 else (lon, lat)
            written_in = ("gcj02" if crs == "bd09" else "bd09") if undeclared else crs
            x, y = (round(float(value), 7) for value in from_wgs84(*near, written_in))
            back_lon, back_lat = to_wgs84(x, y, crs)
            said_at = (float(back_lon), float(back_lat))
            if self._is_in_city(*said_at):
                break
            undeclared = undeclared and attempt < _TRIES // 2
        fields: dict[str, Any] = {"lon": x, "lat": y}
        if declared != "default":
            fields["crs"] = declared
        if told:
            fields["accuracy_m"] = round(sigma_m, 1)
        return fields, said_at, "datum_undeclared" if undeclared else None

    def _send(
        self,
        source: str,
        model: SourceModel,
        time_ms: int,
        fields: dict[str, Any],
        event: _Event | None,
        said_at: tuple[float, float] | None,
        errors: Iterable[str | None] = (),
        *,
        cluster_id: str | None = None,
        is_report: bool = True,
    ) -> None:
        """Put a message on its way, late or twice if so it falls."""
        kinds = [error for error in errors if error is not None]
        delay_ms = self._wait_ms(model.delay_s)
        if self._chance(model.late):
            delay_ms += round(self._between(min(600.0, model.late_max_s), model.late_max_s) * 1000)
            kinds.append("late")
        report = _Report(source, time_ms, time_ms + delay_ms, fields, said_at=said_at, is_report=is_report)
        if event is not None:
            report.cluster_id, report.event_category = event.cluster_id, event.category.code
            report.true_at = (event.lon, event.lat)
        if cluster_id is not None:
            report.cluster_id = cluster_id
        if is_report and self._chance(model.sent_again):
            report.sent_again_ms = report.arrives_ms + round(self._between(60, 3600) * 1000)
        report.errors = tuple(kinds)
        self.reports.append(report)

    # ------------------------------------------------------------------------------------------ the four sources

    def _reporters(self, event: _Event, model: PeopleModel) -> int:
        """How many people report an event."""
        urgent = event.category.priority == 1
        if not self._chance(model.reported_urgent if urgent else model.reported):
            return 0
        return 1 + int(self.rng.poisson((model.further_urgent if urgent else model.further) * event.crowd))

    def _call(self, event: _Event) -> None:
        model = self.model.hotline
        if event.category.code not in self._labels["hotline"]:
            return
        for _ in range(self._reporters(event, model)):
            # Most calls come early: what can be seen for long is called about in its first half.
            time_ms = event.start_ms + round((event.end_ms - event.start_ms) * self._between(0, 1) ** 2)
            caller = self._caller()
            self._ticket(event, event.category, event.lon, event.lat, time_ms, caller, ())
            if self._chance(model.same_again):
                again_ms = time_ms + self._wait_ms(3600)
                if again_ms <= event.end_ms:
                    self._ticket(event, event.category, event.lon, event.lat, again_ms, caller, ("same_again",))

    def _caller(self) -> str:
        return _CALLER.format(int(self.rng.integers(10_000)))

    def _ticket(
        self,
        event: _Event | None,
        category: Category,
        lon: float,
        lat: float,
        time_ms: int,
        caller: str,
        errors: tuple[str, ...],
        cluster_id: str | None = None,
    ) -> None:
        model = self.model.hotline
        label, mislabelled = self._label("hotline", category, model)
        fields: dict[str, Any] = {"category": label, "caller": caller}
        place = self._nearest_place(lon, lat)
        chance = self._between(0, 1)
        said_at: tuple[float, float] | None = None
        kinds: list[str | None] = [*errors, mislabelled]
        if chance < model.nowhere:
            kinds.append("nowhere")
        elif chance < model.nowhere + model.address_only and place is not None:
            fields["address"] = f"{place}附近"
            kinds.append("address_only")
        else:
            position, said_at, undeclared = self._coordinates("hotline", model, lon, lat, *model.accuracy_m)
            fields.update(position)
            kinds.append(undeclared)
            if place is not None and self._chance(0.5):
                fields["address"] = f"{place}附近"
        text = f"{category.name},请尽快处理。"
        if self._chance(0.15):
            text += f"联系电话{caller}。"
        fields["text"] = text
        self._send("hotline", model, time_ms, fields, event, said_at, kinds, cluster_id=cluster_id)

    def _nearest_place(self, lon: float, lat: float) -> str | None:
        if not self.pack.places:
            return None
        return self.pack.places[int(np.argmin(distance_m(lon, lat, self._place_lon, self._place_lat)))].name

    def _walk_past(self, event: _Event) -> None:
        model = self.model.patrol
        if event.category.code not in self._labels["patrol"]:
            return
        for _ in range(self._reporters(event, model)):
            time_ms = self._on_duty(event.start_ms + self._wait_ms(model.found_after_s), model)
            if time_ms is None or time_ms > event.end_ms:
                continue
            worker = self._worker(event.lon, event.lat)
            self._find(event, event.category, event.lon, event.lat, time_ms, worker, ())
            if self._chance(model.same_again):
                again_ms = time_ms + self._wait_ms(model.found_after_s)
                if again_ms <= event.end_ms:
                    self._find(event, event.category, event.lon, event.lat, again_ms, worker, ("same_again",))

    def _on_duty(self, time_ms: int, model: PatrolModel) -> int | None:
        """The moment itself, or one soon after the next start of duty; None if there is no duty at all."""
        begin, end = model.hours
        local = datetime.fromtimestamp(time_ms / 1000, self.zone)
        if begin <= local.hour < end:
            return time_ms
        if begin >= end:
            return None
        morning = local.replace(hour=begin, minute=0, second=0, microsecond=0)
        if local.hour >= end:
            morning += timedelta(days=1)
        return round(morning.timestamp() * 1000) + self._wait_ms(model.found_after_s)

    def _worker(self, lon: float, lat: float) -> str:
        """One of two workers of the cell that holds the grid cells here."""
        cell = int(self.pack.grid.locate([lon], [lat])[0])
        outer = int(self.pack.grid.parent[cell])
        code = self.pack.grid.codes[outer if outer >= 0 else cell]
        return f"W{code[:48]}-{int(self.rng.integers(1, 3))}"

    def _find(
        self,
        event: _Event | None,
        category: Category,
        lon: float,
        lat: float,
        time_ms: int,
        worker: str,
        errors: tuple[str, ...],
        cluster_id: str | None = None,
    ) -> None:
        model = self.model.patrol
        label, mislabelled = self._label("patrol", category, model)
        position, said_at, undeclared = self._coordinates("patrol", model, lon, lat, *model.accuracy_m)
        fields: dict[str, Any] = {"worker_id": worker, "category": label, **position}
        self._send(
            "patrol", model, time_ms, fields, event, said_at, (*errors, mislabelled, undeclared), cluster_id=cluster_id
        )

    def _within_reach(self, event: _Event, devices: Sequence[Device], model: MachineModel) -> list[Device]:
        if not devices:
            return []
        away_m = distance_m(event.lon, event.lat, [d.lon for d in devices], [d.lat for d in devices])
        return [devices[k] for k in np.flatnonzero(away_m <= model.reach_m).tolist()]

    def _noticed(self, event: _Event, model: MachineModel) -> list[int]:
        """When a machine within reach says so."""
        if not self._chance(model.seen):
            return []
        times = [event.start_ms + self._wait_ms(30)]
        while len(times) <= model.again_most:
            times.append(times[-1] + self._wait_ms(model.again_s) + 1000)
        return [time_ms for time_ms in times if time_ms <= event.end_ms]

    def _watch(self, event: _Event) -> None:
        if event.category.code not in self._labels["video"]:
            return
        for camera in self._within_reach(event, self.cameras, self.model.video):
            for k, time_ms in enumerate(self._noticed(event, self.model.video)):
                errors = ("same_again",) if k else ()
                self._see(event, event.category, camera, time_ms, errors, self.model.video.confidence)

    def _see(
        self,
        event: _Event | None,
        category: Category,
        camera: Device,
        time_ms: int,
        errors: tuple[str, ...],
        confidence: tuple[float, float],
        cluster_id: str | None = None,
    ) -> None:
        model = self.model.video
        label, mislabelled = self._label("video", category, model)
        fields: dict[str, Any] = {
            "camera_id": camera.id,
            "event_type": label,
            "confidence": round(self._between(*confidence), 2),
        }
        said_at, undeclared = (camera.lon, camera.lat), None
        if event is not None and self._chance(model.own_position):
            position, said_at, undeclared = self._coordinates("video", model, event.lon, event.lat, *model.accuracy_m)
            fields.update(position)
        self._send(
            "video", model, time_ms, fields, event, said_at, (*errors, mislabelled, undeclared), cluster_id=cluster_id
        )

    def _sense(self, event: _Event) -> None:
        model = self.model.iot
        for sensor in self._within_reach(event, self._sensors_of.get(event.category.code, []), model):
            times = self._noticed(event, model)
            for k, time_ms in enumerate(times):
                self._raise_alarm(event, event.category, sensor, time_ms, ("same_again",) if k else ())
            if times and self._chance(model.cleared):
                fields = {"device_id": sensor.id, "alarm": self._labels["iot"][event.category.code][0]}
                self._send("iot", model, event.end_ms, {**fields, "state": "cleared"}, None, None, is_report=False)

    def _raise_alarm(
        self,
        event: _Event | None,
        category: Category,
        sensor: Device,
        time_ms: int,
        errors: tuple[str, ...],
        cluster_id: str | None = None,
    ) -> None:
        model = self.model.iot
        label, mislabelled = self._label("iot", category, model)
        fields: dict[str, Any] = {"device_id": sensor.id, "alarm": label}
        if self._chance(0.5):
            fields["state"] = "raised"
        if sensor.asset_id is not None:
            fields["asset_id"] = sensor.asset_id
        said_at, undeclared = (sensor.lon, sensor.lat), None
        if self._chance(model.own_position):
            position, said_at, undeclared = self._coordinates("iot", model, sensor.lon, sensor.lat, *model.accuracy_m)
            fields.update(position)
        self._send(
            "iot", model, time_ms, fields, event, said_at, (*errors, mislabelled, undeclared), cluster_id=cluster_id
        )

    # ------------------------------------------------------------------------------------- what never happened

    def _report_nothing(self) -> None:
        """False alarms of each source, as many as its share of them asks for."""
        counts = Counter(report.source for report in self.reports if report.is_report)
        for source in SOURCES:
            share = getattr(self.model, source).false_alarms
            for time_ms in self._times(counts[source] * share / (1 - share) / self.hours * 24):
                self._one_false_alarm(source, time_ms)

    def _one_false_alarm(self, source: str, time_ms: int) -> None:
        codes = [code for code in self._labels[source] if self._by_code[code].event]
        if source == "iot":
            sensors = [sensor for sensor in self.sensors if self._senses[sensor.kind]]
            sensor = self._pick(sensors)
            category = self._by_code[self._pick(self._senses[sensor.kind])]
            self._raise_alarm(None, category, sensor, time_ms, ("false_alarm",), self._false_alarm())
            return
        category = self._by_code[self._pick(codes)]
        if source == "video":
            confidence = self.model.video.confidence_false
            camera = self._pick(self.cameras)
            self._see(None, category, camera, time_ms, ("false_alarm",), confidence, self._false_alarm())
            return
        lon, lat = self._anywhere()
        if source == "hotline":
            caller = self._caller()
            self._ticket(None, category, lon, lat, time_ms, caller, ("false_alarm",), self._false_alarm())
            return
        on_duty_ms = self._on_duty(time_ms, self.model.patrol)
        if on_duty_ms is not None:
            worker = self._worker(lon, lat)
            self._find(None, category, lon, lat, on_duty_ms, worker, ("false_alarm",), self._false_alarm())

    def _false_alarm(self) -> str:
        self._false_alarms += 1
        return f"f{self._false_alarms - 1:06d}"

    def _ask(self) -> None:
        """Tickets that ask or praise."""
        model = self.model.hotline
        codes = [code for code in self._labels["hotline"] if not self._by_code[code].event]
        tickets = sum(report.source == "hotline" for report in self.reports)
        if not codes:
            return
        for time_ms in self._times(tickets * model.no_event / (1 - model.no_event) / self.hours * 24):
            category = self._by_code[self._pick(codes)]
            fields: dict[str, Any] = {
                "category": self._pick(self._labels["hotline"][category.code]),
                "caller": self._caller(),
                "text": f"{category.name}。",
            }
            self._send("hotline", model, time_ms, fields, None, None, ("no_event",))
            self.reports[-1].event_category = category.code

    def _read(self) -> None:
        """Every sensor's ordinary readings; those behind one gateway at one moment."""
        model = self.model.iot
        every_ms = max(1, round(model.reading_every_s * 1000 / self.rate))
        phase = [int(self.rng.integers(every_ms)) for _ in self._batches]
        for sensor in self.sensors:
            reading = model.readings.get(sensor.kind)
            if reading is None:
                continue
            for time_ms in range(self.start_ms + phase[self._gateway[sensor.id]], self.end_ms, every_ms):
                value = round(self._between(reading.low, reading.high), 2)
                fields = {"device_id": sensor.id, "metric": reading.metric, "value": value, "unit": reading.unit}
                arrives_ms = time_ms + round(model.delay_s * 1000)
                self.reports.append(_Report("iot", time_ms, arrives_ms, fields, is_report=False))

    # --------------------------------------------------------------------------------------- on the wire

    def _finish(self, result: Simulation) -> None:
        """Number, encode, break, batch and order the messages, and say what is true of them."""
        arrived = [report for report in self.reports if self.start_ms <= report.arrives_ms < self.end_ms]
        arrived.sort(key=lambda report: report.time_ms)
        numbers: Counter[str] = Counter()
        elements: list[_Element] = []
        for report in arrived:
            report.id = f"{_ID_PREFIX[report.source]}{numbers[report.source]:07d}"
            numbers[report.source] += 1
            element = self._element(report)
            elements.append(element)
            if report.sent_again_ms is not None and report.sent_again_ms < self.end_ms:
                again = _Element(report.sent_again_ms, report.source, element.key, element.value, None, report)
                elements.append(again)
        elements += self._broken([report for report in arrived if report.is_report])
        elements.sort(key=lambda element: element.arrives_ms)
        offsets: Counter[str] = Counter()
        first_of: dict[str, _Report] = {}
        told: set[str] = set()
        for batch in self._batched(elements):
            result.messages.append(self._message(batch, offsets))
            for element in batch:
                result.elements[element.source] += 1
                if element.broken is not None:
                    result.broken[element.broken.value] += 1
                elif element.report is not None:
                    self._tell(element.report, first_of, told, result)
        result.events_reported = sum(cluster_id.startswith("e") for cluster_id in first_of)

    def _tell(self, report: _Report, first_of: dict[str, _Report], told: set[str], result: Simulation) -> None:
        """Count an element that can be read, and write its row of the truth when it comes for the first time."""
        if not report.is_report:
            result.quiet += 1
            return
        if report.id in told:
            result.repeats += 1
            return
        told.add(report.id)
        result.reports[report.source] += 1
        result.errors.update(report.errors)
        first = first_of.setdefault(report.cluster_id, report) if report.cluster_id else report
        is_first = first is report
        lon, lat = report.true_at or (None, None)
        result.truth.append(
            TruthRow(
                source=report.source,
                report_id=report.id,
                cluster_id=report.cluster_id,
                is_duplicate=0 if is_first else 1,
                parent_id="" if is_first else first.id,
                link_quality="" if is_first else _link_quality(report, first),
                event_category=report.event_category,
                lon=lon,
                lat=lat,
            )
        )

    def _wire_fields(self, report: _Report, report_id: str) -> dict[str, Any]:
        return {"id": report_id, "time": self._written(report.source, report.time_ms), **report.fields}

    def _written(self, source: str, time_ms: int) -> str | int:
        """Each source writes its times in its own way."""
        if source == "iot":
            return time_ms
        if source == "video":
            seconds, millisecond = divmod(time_ms, 1000)
            return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millisecond:03d}Z"
        return datetime.fromtimestamp(time_ms // 1000, self.zone).isoformat()

    def _element(self, report: _Report) -> _Element:
        fields = self._wire_fields(report, report.id)
        return _Element(
            report.arrives_ms, report.source, _key(report.source, fields), orjson.dumps(fields),
            self._batching_gateway(report), report,
        )  # fmt: skip

    def _batching_gateway(self, report: _Report) -> int | None:
        if report.source != "iot":
            return None
        gateway = self._gateway[report.fields["device_id"]]
        return gateway if self._batches[gateway] else None

    def _broken(self, reports: Sequence[_Report]) -> list[_Element]:
        """Copies of reports, each with one fault: at least one for every reason that the model and the pack allow."""
        model = self.model.broken
        weights = {reason: weight for reason, weight in model.reasons.items() if weight > 0}
        if not weights or not model.share:
            return []
        by_source: defaultdict[str, list[_Report]] = defaultdict(list)
        for report in reports:
            by_source[report.source].append(report)
        broken: list[_Element] = []
        for name, weight in weights.items():
            reason = Reason(name)
            able = [source for source in SOURCES if by_source[source] and self._can_break(source, reason)]
            count = max(1, round(model.share * len(reports) * weight / sum(weights.values())))
            for _ in range(count if able else 0):
                source = self._pick(able)
                broken.append(self._break(self._pick(by_source[source]), reason, len(broken)))
        return broken

    def _can_break(self, source: str, reason: Reason) -> bool:
        if reason is Reason.UNKNOWN_CATEGORY:
            return self.pack.sources[source].fallback_category is None
        return reason is not Reason.UNKNOWN_DEVICE or source in ("iot", "video")

    def _break(self, report: _Report, reason: Reason, number: int) -> _Element:
        source = report.source
        fields = self._wire_fields(report, f"{_ID_PREFIX[source]}X{number:06d}")
        key = _key(source, fields)
        arrives_ms = report.arrives_ms
        gateway = self._batching_gateway(report)
        _, south, east, north = self.pack.grid.bounds
        if reason is Reason.MISSING_FIELD:
            del fields[self._pick(_REQUIRED[source])]
        elif reason is Reason.WRONG_TYPE:
            fields[_LABEL_FIELD[source]] = 17
        elif reason is Reason.OUT_OF_RANGE:
            fields.update(lon=200.5, lat=(south + north) / 2)
        elif reason is Reason.INVALID_TIME:
            fields["time"] = "2026-13-41T25:61:00Z"
        elif reason is Reason.TOO_OLD:
            fields["time"] = "1970-01-01T00:00:00Z"
        elif reason is Reason.FUTURE_TIME:
            fields["time"] = self._written(source, arrives_ms + 3 * 3_600_000)
        elif reason is Reason.UNSUPPORTED_CRS:
            fields["crs"] = "utm50"
        elif reason is Reason.UNKNOWN_CATEGORY:
            fields[_LABEL_FIELD[source]] = f"unmapped_{number}"
        elif reason is Reason.UNKNOWN_DEVICE:
            fields[_WITNESS_FIELD[source]] = f"unregistered-{number}"
            for name in ("lon", "lat"):
                fields.pop(name, None)
        elif reason is Reason.OUTSIDE_CITY:
            fields.update(lon=round(east + 0.5, 6), lat=round((south + north) / 2, 6))
        value = orjson.dumps(fields)
        if reason is Reason.MALFORMED_JSON:
            # Cut on the way: no gateway would put that into an array.
            value, gateway = value[: len(value) * 3 // 5], None
        elif reason is Reason.NOT_AN_OBJECT:
            value = orjson.dumps(fields["id"])
        return _Element(arrives_ms, source, key, value, gateway, None, reason)

    def _batched(self, elements: Sequence[_Element]) -> list[list[_Element]]:
        """Elements as they are sent: one by one, or a gateway's of some seconds together, when the last has come."""
        batch_ms = max(1, round(self.model.iot.batch_s * 1000))
        batches: dict[tuple[int, int], list[_Element]] = {}
        sent: list[list[_Element]] = []
        for element in elements:
            if element.gateway is None:
                sent.append([element])
                continue
            slot = (element.gateway, element.arrives_ms // batch_ms)
            if slot not in batches:
                batches[slot] = []
                sent.append(batches[slot])
            batches[slot].append(element)
        sent.sort(key=lambda batch: batch[-1].arrives_ms)
        return sent

    def _message(self, batch: Sequence[_Element], offsets: Counter[str]) -> RecordedMessage:
        first = batch[0]
        topic = TOPIC_OF_SOURCE[first.source]
        value = first.value
        if first.gateway is not None:
            value = b"[" + b",".join(element.value for element in batch) + b"]"
        offset = offsets[topic]
        offsets[topic] += 1
        return RecordedMessage(topic, value, 0, offset, batch[-1].arrives_ms, first.key.encode())


def _key(source: str, fields: Mapping[str, Any]) -> str:
    """What the topic is keyed by: tickets by their id, all else by who sent it."""
    return str(fields["id"] if source == "hotline" else fields[_WITNESS_FIELD[source]])


def _link_quality(report: _Report, first: _Report) -> str:
    if report.said_at is None or first.said_at is None:
        return "none"
    return "good" if _metres(*report.said_at, *first.said_at) <= GOOD_LINK_M else "far"


def _metres(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    return float(distance_m(lon1, lat1, lon2, lat2))
