"""Sensors: alarms of their own, readings that rise and fall with what happens, and devices that are at fault."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from geo.datum import from_wgs84
from streams.error_model import ErrorModel, IotModel, ReadingModel
from streams.messages import Reason
from streams.pack import Category, Device
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity, moved, within
from streams.simulated_events import Event, Span, Storm
from streams.simulated_messages import Report, SensorReading
from streams.simulated_sources import Machines
from streams.simulated_wire import Gateways

_TREMOR = 0.03
"""One sigma of what a value trembles by, compared with how far an event lifts it."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """A sensor that is at fault for some hours."""

    kind: str
    start_ms: int
    end_ms: int
    cluster_id: str
    says_unit: bool
    """Whether one in another unit says which."""


@dataclass(frozen=True, slots=True)
class _Rise:
    """What an event does to the values of a sensor within its reach."""

    event: Event
    value: float


class Sensors(Machines):
    """All devices that are no cameras, and the gateways that they are behind."""

    name = "iot"
    model: IotModel

    def __init__(
        self, city: SimulatedCity, model: ErrorModel, chance: Chance, span: Span, storms: Sequence[Storm], rate: float
    ) -> None:
        self.model = model.iot
        size = self.model.gateway_devices
        groups = [city.sensors[at : at + size] for at in range(0, len(city.sensors), size)]
        super().__init__(city, chance, span, groups)
        share = self.model.gateways_batch
        # Spread evenly, not drawn: a handful of gateways would make the number of messages a matter of luck.
        self.gateways = Gateways(
            {sensor.id: number for number, group in enumerate(groups) for sensor in group},
            [math.floor((number + 1) * share) > math.floor(number * share) for number in range(len(groups))],
        )
        self._every_ms = max(1, round(self.model.reading_every_s * 1000 / rate))
        self._often_ms = max(1, round(model.storm.reading_every_s * 1000 / rate))
        self._storms = storms
        self._rises: defaultdict[str, list[_Rise]] = defaultdict(list)
        self._faults: defaultdict[str, list[_Fault]] = defaultdict(list)
        # What devices tremble around, how far it is from there to clear, and the units that a metric's rules know.
        self._bounds: dict[str, tuple[float, float]] = {}
        self._units: defaultdict[str, set[str]] = defaultdict(set)
        for rule in city.pack.rules:
            bound = rule.above if rule.above is not None else rule.below
            assert bound is not None, "a rule is above or below"
            back_by = 0.0 if rule.clear is None else abs(bound - rule.clear)
            self._bounds.setdefault(rule.metric, (bound, max(back_by, 1e-3)))
            if rule.unit is not None:
                self._units[rule.metric].add(rule.unit)

    @property
    def false_categories(self) -> list[Category]:
        """Of what some sensor can raise a false alarm."""
        codes = sorted({code for sensor in self.city.sensors for code in self.city.senses[sensor.kind]})
        return [self.city.by_code[code] for code in codes if self.city.by_code[code].event]

    # -------------------------------------------------------------------------------------------------- at fault

    def fail(self, new_cluster: Callable[[], str]) -> None:
        """Draw which sensors are at fault when; those of one kind spread over the time, not left to luck."""
        faults = self.model.faults
        expected = faults.share * len(self.city.sensors) * self.span.days
        total = sum(faults.kinds.values())
        for kind, weight in faults.kinds.items():
            able = [sensor for sensor in self.city.sensors if self._can_fail(sensor, kind)]
            for _ in range(self.chance.near(expected * weight / total) if able and total else 0):
                sensor = self.chance.pick(able)
                start_ms = self.chance.whole(self.span.start_ms, self.span.end_ms - 1)
                end_ms = start_ms + self.chance.wait_ms(faults.lasts_s)
                if any(start_ms < fault.end_ms and fault.start_ms < end_ms for fault in self._faults[sensor.id]):
                    continue
                fault = _Fault(kind, start_ms, end_ms, new_cluster(), self.chance.happens(faults.unit_told))
                self._faults[sensor.id].append(fault)
                if kind == "flapping":
                    category = self.city.by_code[self.chance.pick(self.city.senses[sensor.kind])]
                    self._flap(None, category, sensor, start_ms, min(end_ms, self.span.end_ms), fault.cluster_id)

    def _can_fail(self, sensor: Device, kind: str) -> bool:
        reading = self.model.readings.get(sensor.kind)
        if kind == "flapping":
            return bool(self.city.senses[sensor.kind])
        if kind == "wrong_unit":
            return reading is not None and reading.unit in self.model.faults.units
        if kind == "trembling":
            return reading is not None and reading.metric in self._bounds
        return kind == "silent" or reading is not None

    def _fault(self, sensor: Device, time_ms: int) -> _Fault | None:
        for fault in self._faults.get(sensor.id, ()):
            if fault.start_ms <= time_ms < fault.end_ms:
                return fault
        return None

    # ------------------------------------------------------------------------------------------ alarms of its own

    def report(self, event: Event) -> None:
        """What the sensors within reach notice: in their readings, by an alarm of their own, or both."""
        code = event.category.code
        for sensor in within(self.city.sensors, event.lon, event.lat, self.model.reach_m + event.extent_m):
            reading = self.model.readings.get(sensor.kind)
            shows = reading is not None and code in reading.during
            if reading is not None and shows:
                self._rises[sensor.id].append(_Rise(event, self.chance.between(*reading.during[code])))
            if code not in self.city.senses[sensor.kind] or not self.can_tell(event):
                continue
            if shows and not self.chance.happens(self.model.alarms_itself):
                continue
            times = self.noticed(event)
            for number, time_ms in enumerate(times):
                self._alarm(event, event.category, sensor, time_ms, ("same_again",) if number else ())
            if times and self.chance.happens(self.model.flaps):
                self._flap(event, event.category, sensor, times[0] + 1000, event.end_ms)
            if times and self.chance.happens(self.model.cleared):
                self._clear(event, event.category, sensor, event.end_ms)

    def raise_false_alarm(self, time_ms: int, cluster_id: str) -> None:
        """Some sensor raises an alarm about nothing."""
        sensors = [sensor for sensor in self.city.sensors if self.city.senses[sensor.kind]]
        sensor = self.chance.pick(sensors)
        category = self.city.by_code[self.chance.pick(self.city.senses[sensor.kind])]
        self._alarm(None, category, sensor, time_ms, ("false_alarm",), cluster_id)

    def _flap(
        self, event: Event | None, category: Category, sensor: Device, start_ms: int, end_ms: int, cluster_id: str = ""
    ) -> None:
        """An alarm that is cleared and raised again and again."""
        at_ms = start_ms
        errors = ("flapping",) if event is not None else ("flapping", "false_alarm")
        for _ in range(self.chance.whole(1, max(1, self.model.flaps_most))):
            self._clear(event, category, sensor, at_ms)
            at_ms += self.chance.wait_ms(self.model.faults.flap_s) + 1
            if at_ms > end_ms:
                return
            self._alarm(event, category, sensor, at_ms, errors, cluster_id)
            at_ms += self.chance.wait_ms(self.model.faults.flap_s) + 1
            if at_ms > end_ms:
                return

    def _clear(self, event: Event | None, category: Category, sensor: Device, time_ms: int) -> None:
        fields = {"device_id": sensor.id, "alarm": self._labels[category.code][0], "state": "cleared"}
        report = self.say(time_ms, fields, event=event, is_report=False, platform=self.platform_of[sensor.id])
        self._let_out(report, sensor)

    def _alarm(
        self,
        event: Event | None,
        category: Category,
        sensor: Device,
        time_ms: int,
        errors: Sequence[str],
        cluster_id: str = "",
    ) -> None:
        label, mislabelled = self.label(category)
        fields: dict[str, Any] = {"device_id": sensor.id, "alarm": label}
        if self.chance.happens(0.5):
            fields["state"] = "raised"
        if sensor.asset_id is not None:
            fields["asset_id"] = sensor.asset_id
        said_at, undeclared = (sensor.lon, sensor.lat), None
        if self.chance.happens(self.model.own_position):
            position, said_at, undeclared = self.coordinates(sensor.lon, sensor.lat, self.model.accuracy_m)
            fields.update(position)
        report = self.say(
            time_ms, fields, event=event, cluster_id=cluster_id, said_at=said_at,
            errors=(*errors, mislabelled, undeclared), platform=self.platform_of[sensor.id],
        )  # fmt: skip
        self._let_out(report, sensor)

    def _let_out(self, report: Report, sensor: Device) -> None:
        """What was said last goes its ways, if anything is left of it."""
        if self._gets_out(report, sensor):
            self.copy(report, sensor.id)
        else:
            self.said.pop()

    def _gets_out(self, report: Report, sensor: Device) -> bool:
        """Let the device's fault, if it has one now, do its work on what it says; whether anything is left of it."""
        fault = self._fault(sensor, report.time_ms)
        if fault is None:
            return True
        if fault.kind == "far_away":
            self._carry_off(report, sensor)
        elif fault.kind == "clock_ahead":
            report.clock_off_ms = round(self.model.faults.ahead_s * 1000)
            report.broken = Reason.FUTURE_TIME
        elif fault.kind == "clock_behind":
            report.clock_off_ms = -round(self.model.faults.behind_s * 1000)
            report.errors = (*report.errors, "clock_behind")
        return fault.kind != "silent"

    def _carry_off(self, report: Report, sensor: Device) -> None:
        lon, lat = moved(sensor.lon, sensor.lat, self.model.faults.far_m, 0.0)
        x, y = from_wgs84(lon, lat, self._entry_crs)
        report.fields = {**report.fields, "lon": round(float(x), 7), "lat": round(float(y), 7)}
        report.fields.pop("crs", None)
        report.said_at = (lon, lat)
        report.broken = Reason.OUTSIDE_CITY

    # ------------------------------------------------------------------------------------------------- readings

    def measure(self) -> None:
        """Every sensor's readings; those behind one gateway at one moment."""
        phase = [self.chance.whole(0, self._every_ms - 1) for _ in self.gateways.batches]
        for sensor in self.city.sensors:
            reading = self.model.readings.get(sensor.kind)
            if reading is not None:
                self._measure(sensor, reading, phase[self.gateways.of_device[sensor.id]])

    def _measure(self, sensor: Device, reading: ReadingModel, phase_ms: int) -> None:
        storms = [storm for storm in self._storms if reading.wet is not None and storm.covers(sensor.lon, sensor.lat)]
        wet = [self.chance.between(*reading.wet) if reading.wet is not None else 0.0 for _ in storms]
        rises = sorted(self._rises.get(sensor.id, []), key=lambda rise: rise.event.start_ms)
        fields = {"device_id": sensor.id, "metric": reading.metric, "unit": reading.unit}
        delay_ms, ramp_ms = round(self.model.delay_s * 1000), round(self.model.rise_s * 1000)
        last: float | None = None
        at, lasting = 0, list[_Rise]()
        for time_ms in self._moments(phase_ms, storms, rises):
            calm = self.chance.between(reading.low, reading.high)
            for storm, level in zip(storms, wet, strict=True):
                calm += storm.wetness(time_ms) * (level - calm)
            while at < len(rises) and rises[at].event.start_ms <= time_ms:
                lasting.append(rises[at])
                at += 1
            lasting = [rise for rise in lasting if time_ms < rise.event.end_ms + ramp_ms]
            value, event = self._risen(calm, lasting, time_ms, ramp_ms)
            one = SensorReading(
                "iot", time_ms, time_ms + delay_ms, fields, event=event, said_at=(sensor.lon, sensor.lat),
                platform=self.platform_of[sensor.id], value=round(value, 2), calm=round(calm, 2),
            )  # fmt: skip
            fault = self._fault(sensor, time_ms)
            if fault is None or last is None:
                last = one.value
            if fault is not None:
                self._spoil(one, reading, fault, last)
            if self._gets_out(one, sensor):
                self.said.append(one)
                self.copy(one, sensor.id)

    def _moments(self, phase_ms: int, storms: Sequence[Storm], rises: Sequence[_Rise]) -> list[int]:
        """When it tells its value: at its interval, more often in the rain, and when the value changes."""
        begin, end = self.span.start_ms, self.span.end_ms
        moments = set(range(begin + phase_ms, end, self._every_ms))
        for storm in storms:
            # From a little before to a little after, or nobody saw it rise and fall.
            first, last = storm.start_ms - 5 * self._often_ms, storm.dry_ms + 5 * self._often_ms
            moments.update(range(max(begin, first), min(end, last), self._often_ms))
        for rise in rises:
            for at_ms in (rise.event.start_ms, rise.event.end_ms):
                steps = range(at_ms, at_ms + self.model.on_change * self._often_ms, self._often_ms)
                moments.update(step for step in steps if begin <= step < end)
        return sorted(moments)

    def _risen(self, calm: float, rises: Sequence[_Rise], time_ms: int, ramp_ms: int) -> tuple[float, Event | None]:
        """The value under what moves it most just now."""
        value, cause = calm, None
        for rise in rises:
            event = rise.event
            share = min(1.0, (time_ms - event.start_ms) / ramp_ms, (event.end_ms + ramp_ms - time_ms) / ramp_ms)
            moved_to = calm + share * (rise.value - calm) * (1 + self.chance.offset(_TREMOR)[0])
            if share > 0 and abs(moved_to - calm) > abs(value - calm):
                value, cause = moved_to, event
        return value, cause

    def _spoil(self, one: SensorReading, reading: ReadingModel, fault: _Fault, last: float) -> None:
        """Let a fault do its work on the value of a reading; ``last`` is the device's last sound one."""
        faults = self.model.faults
        if fault.kind == "stuck":
            self._show(one, last, fault)
        elif fault.kind == "not_a_number":
            one.broken = Reason.MALFORMED_JSON
        elif fault.kind == "wrong_unit":
            unit, factor = faults.units[reading.unit]
            if fault.says_unit:
                one.fields = {**one.fields, "unit": unit}
                if unit not in self._units.get(reading.metric, {unit}):
                    one.broken = Reason.OUT_OF_RANGE
            else:
                one.fields = {name: value for name, value in one.fields.items() if name != "unit"}
            self._show(one, round(one.value * factor, 4), fault)
        elif fault.kind == "trembling":
            bound, back_by = self._bounds[reading.metric]
            self._show(one, round(bound + self.chance.offset(back_by)[0], 4), fault)

    @staticmethod
    def _show(one: SensorReading, value: float, fault: _Fault) -> None:
        """A value that says nothing of what happens."""
        one.value = one.calm = value
        one.event = None
        one.cluster_id = fault.cluster_id
        one.errors = (fault.kind, "false_alarm")
