"""The wire of a simulation: what sources say becomes bytes, in arrays or alone and in order, with its truth beside it.

Everything is decided at the moment of sending, so that what is put right meanwhile is not reported any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from geo.datum import from_wgs84
from streams.error_model import ErrorModel, SourceModel
from streams.messages import TOPIC_OF_SOURCE, Reason
from streams.pack import CityPack
from streams.recording import RecordedMessage
from streams.simulated_breakage import WITNESS_FIELD, Breakage
from streams.simulated_chance import Chance
from streams.simulated_city import metres
from streams.simulated_events import Event, Span
from streams.simulated_messages import Report, SensorReading
from streams.simulated_platforms import Platforms
from streams.simulated_rules import RuleBook

GOOD_LINK_M = 300.0
"""A duplicate placed further than this from its parent is a `far` link: no rule by distance can find it."""
_ID_PREFIX = {"iot": "S", "video": "V", "hotline": "H", "patrol": "P"}


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
class Sent:
    """What has gone over the wire, counted as a replay of it must count."""

    truth: list[TruthRow] = field(default_factory=list)
    """In order of arrival, one row a report."""
    elements: Counter[str] = field(default_factory=Counter)
    """By source."""
    reports: Counter[str] = field(default_factory=Counter)
    """Distinct reports of each source, as in the truth."""
    quiet: int = 0
    """Readings that make no report, and cleared alarms."""
    by_rule: int = 0
    """Reports that a rule makes of readings."""
    repeats: int = 0
    """Reports sent again under their own id, and those of one device through a second platform."""
    amended: int = 0
    """Reports sent again under their own id with other content."""
    broken: Counter[str] = field(default_factory=Counter)
    """Elements that must become dead letters, by reason."""
    errors: Counter[str] = field(default_factory=Counter)
    """Reports with each kind of error: ``late``, ``mislabelled``, ``false_alarm`` and so on."""


@dataclass(slots=True, eq=False)
class Element:
    """One JSON value on its way to the broker."""

    arrives_ms: int
    report: Report
    platform: str | None
    plainly: bool = False
    """By our names, though its platform has its own."""
    gateway: int | None = None
    """A gateway that batches; None sends it alone."""
    value: bytes | None = None
    """Of what is broken; all else becomes bytes when it is sent."""
    key: str = ""
    broken: Reason | None = None
    amends: bool = False
    """It says its report's amendment."""


@dataclass(slots=True, eq=False)
class Batch:
    """Elements that are one message."""

    sent_ms: int
    elements: list[Element]


class Gateways:
    """Which devices send together: some gateways put what comes within seconds into an array."""

    def __init__(self, of_device: Mapping[str, int], batches: Sequence[bool]) -> None:
        self.of_device = of_device
        self.batches = batches

    def batching(self, report: Report) -> int | None:
        """The gateway that sends a report in an array; None for one that goes alone."""
        if report.source != "iot":
            return None
        gateway = self.of_device[report.fields["device_id"]]
        return gateway if self.batches[gateway] else None


class Wire:
    """Turns what sources say into Kafka records, and tells what is true of them."""

    def __init__(self, pack: CityPack, model: ErrorModel, chance: Chance, span: Span, gateways: Gateways) -> None:
        self._pack = pack
        self._model = model
        self._span = span
        self._gateways = gateways
        self._platforms = Platforms(pack, model)
        self._breakage = Breakage(pack, model.broken, chance)
        self._rules = RuleBook(pack.rules)
        self._numbers: Counter[str] = Counter()
        self._offsets: Counter[str] = Counter()
        self._first_of: dict[str, Report] = {}
        self._told: set[str] = set()
        self.false_alarms = 0
        self.event_of: dict[tuple[str, str], Event] = {}
        """The event that each report sent so far speaks of, by source and id."""
        self.sent = Sent()

    @property
    def events_reported(self) -> int:
        """How many events something was sent of."""
        return sum(cluster_id.startswith("e") for cluster_id in self._first_of)

    def new_false_alarm(self) -> str:
        """A cluster of its own for what is no event."""
        self.false_alarms += 1
        return f"f{self.false_alarms - 1:06d}"

    # ---------------------------------------------------------------------------------------- before it is sent

    def batches(self, reports: Sequence[Report]) -> list[Batch]:
        """All that arrives in time, numbered, with broken copies among it, in order of sending."""
        arrived = sorted((one for one in reports if self._is_in_time(one.arrives_ms)), key=lambda one: one.time_ms)
        elements: list[Element] = []
        for report in arrived:
            elements += self._elements(report)
        good = [one for one in arrived if one.is_report and one.broken is None and not isinstance(one, SensorReading)]
        for wreck in self._breakage.wrecks(good, self._fields_under):
            report = wreck.report
            # By our names, it must not get among those of a platform that has its own.
            alone = not wreck.in_array or self._platforms.is_mapped(report.source, report.platform)
            gateway = None if alone else self._gateways.batching(report)
            key = _key(report.source, wreck.fields)
            elements.append(Element(report.arrives_ms, report, None, True, gateway, wreck.value, key, wreck.reason))
        elements.sort(key=lambda element: element.arrives_ms)
        return self._batched(elements)

    def late_batches(self, report: Report) -> list[Batch]:
        """The same of one report that nobody knew of when the others were drawn."""
        return self._batched(self._elements(report)) if self._is_in_time(report.arrives_ms) else []

    def _is_in_time(self, arrives_ms: int) -> bool:
        return self._span.start_ms <= arrives_ms < self._span.end_ms

    def _elements(self, report: Report) -> list[Element]:
        report.id = f"{_ID_PREFIX[report.source]}{self._numbers[report.source]:07d}"
        self._numbers[report.source] += 1
        plainly = not self._can_be_said(report, report.platform)
        # NaN is no JSON, and would take a whole array with it.
        alone = plainly or report.broken is Reason.MALFORMED_JSON or bool(report.copies)
        if not self._platforms.batches(report.source, report.platform):
            alone = True
        gateway = None if alone else self._gateways.batching(report)
        elements = [Element(report.arrives_ms, report, report.platform, plainly, gateway)]
        for at_ms, platform in report.copies:
            if self._is_in_time(at_ms):
                elements.append(Element(at_ms, report, platform, not self._can_be_said(report, platform)))
        at = report.amended_ms
        if at is not None and self._is_in_time(at):
            plainly = not self._can_be_said(report, report.platform, amends=True)
            elements.append(Element(at, report, report.platform, plainly, amends=True))
        return elements

    def _can_be_said(self, report: Report, platform: str | None, *, amends: bool = False) -> bool:
        if not self._platforms.is_mapped(report.source, platform):
            return True
        # Of a unit that the rules do not know, the platform may make one that they do.
        is_unit_wrong = report.broken is Reason.OUT_OF_RANGE
        return not is_unit_wrong and self._platforms.can_say(
            report.source, platform, self._as_written(report, platform, amends=amends)
        )

    def _batched(self, elements: Sequence[Element]) -> list[Batch]:
        """Elements as they are sent: one by one, or a gateway's of some seconds together, when the last has come."""
        batch_ms = max(1, round(self._model.iot.batch_s * 1000))
        arrays: dict[tuple[int, int], Batch] = {}
        batches: list[Batch] = []
        for element in elements:
            if element.gateway is None:
                batches.append(Batch(element.arrives_ms, [element]))
                continue
            slot = (element.gateway, element.arrives_ms // batch_ms)
            if slot not in arrays:
                arrays[slot] = Batch(element.arrives_ms, [])
                batches.append(arrays[slot])
            arrays[slot].elements.append(element)
            arrays[slot].sent_ms = element.arrives_ms
        batches.sort(key=lambda batch: batch.sent_ms)
        return batches

    # --------------------------------------------------------------------------------------------------- sending

    def send(self, batch: Batch) -> RecordedMessage | None:
        """The record, None if all of it was withdrawn; what is true of it is told."""
        elements = [one for one in batch.elements if one.broken is not None or not one.report.is_withdrawn]
        if not elements:
            return None
        first = elements[0]
        source = first.report.source
        values = []
        headers: list[tuple[str, bytes]] = []
        suffix = ""
        for element in elements:
            value, headers, suffix = self._encoded(element)
            values.append(value)
            self._tell(element)
        topic = TOPIC_OF_SOURCE[source] + suffix
        value = values[0] if first.gateway is None else b"[" + b",".join(values) + b"]"
        key = first.key if first.broken is not None else _key(source, {"id": first.report.id, **first.report.fields})
        offset = self._offsets[topic]
        self._offsets[topic] += 1
        return RecordedMessage(topic, value, 0, offset, batch.sent_ms, key.encode(), headers)

    def _encoded(self, element: Element) -> tuple[bytes, list[tuple[str, bytes]], str]:
        if element.value is not None:
            return element.value, [], ""
        report, platform = element.report, element.platform
        fields = self._as_written(report, platform, amends=element.amends)
        if element.plainly:
            fields["time"] = self._written(report.source, report.written_ms)
        value, headers, suffix = self._platforms.encode(report.source, platform, fields, plainly=element.plainly)
        if report.broken is Reason.MALFORMED_JSON:
            value = value[:-1] + b',"value":NaN}'
        return value, headers, suffix

    def _as_written(self, report: Report, platform: str | None, *, amends: bool) -> dict[str, Any]:
        """What a report says through a platform, placed in the platform's datum."""
        fields = self._fields(report) | (report.amendment if amends else {})
        if platform is None:
            return fields
        fields["platform"] = platform
        part: SourceModel = getattr(self._model, report.source)
        crs = part.platforms[platform].crs
        if crs is not None and report.said_at is not None and "lon" in fields:
            fields["lon"], fields["lat"] = (round(float(value), 7) for value in from_wgs84(*report.said_at, crs))
            fields["crs"] = crs
        if self._platforms.is_mapped(report.source, platform):
            fields["time"] = report.written_ms
        return fields

    def _fields(self, report: Report) -> dict[str, Any]:
        fields = {"id": report.id, "time": self._written(report.source, report.written_ms), **report.fields}
        if isinstance(report, SensorReading) and report.broken is not Reason.MALFORMED_JSON:
            fields["value"] = report.shown
        return fields

    def _fields_under(self, report: Report, number: str) -> dict[str, Any]:
        return {**self._fields(report), "id": f"{_ID_PREFIX[report.source]}{number}"}

    def _written(self, source: str, time_ms: int) -> str | int:
        """Each source writes its times in its own way."""
        if source == "iot":
            return time_ms
        if source == "video":
            seconds, millisecond = divmod(time_ms, 1000)
            return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millisecond:03d}Z"
        return datetime.fromtimestamp(time_ms // 1000, self._span.zone).isoformat()

    # --------------------------------------------------------------------------------------------------- the truth

    def _tell(self, element: Element) -> None:
        """Count an element, and write its row of the truth when it comes for the first time."""
        report, sent = element.report, self.sent
        sent.elements[report.source] += 1
        broken = element.broken or report.broken
        if broken is not None:
            sent.broken[broken.value] += 1
            return
        if isinstance(report, SensorReading):
            rule = self._rules.completed(
                report.fields["device_id"], report.fields["metric"], report.shown, report.written_ms
            )
            if rule is None:
                sent.quiet += 1
                return
            sent.by_rule += 1
            if report.cause is None and not report.cluster_id:
                report.cluster_id = self.new_false_alarm()
        elif not report.is_report:
            sent.quiet += 1
            return
        if report.id in self._told:
            sent.amended += element.amends
            sent.repeats += not element.amends
            return
        self._told.add(report.id)
        sent.reports[report.source] += 1
        sent.errors.update(report.errors)
        self._write(report)

    def _write(self, report: Report) -> None:
        event = report.cause if isinstance(report, SensorReading) else report.event
        cluster_id = report.cluster_id if event is None else event.cluster_id
        first = self._first_of.setdefault(cluster_id, report) if cluster_id else report
        if event is not None:
            self.event_of[report.source, report.id] = event
        self.sent.truth.append(
            TruthRow(
                source=report.source,
                report_id=report.id,
                cluster_id=cluster_id,
                is_duplicate=int(first is not report),
                parent_id="" if first is report else first.id,
                link_quality="" if first is report else _link_quality(report, first),
                event_category=report.asked_for if event is None else event.category.code,
                lon=None if event is None else event.lon,
                lat=None if event is None else event.lat,
            )
        )


def _key(source: str, fields: Mapping[str, Any]) -> str:
    """What the topic is keyed by: tickets by their id, all else by who sent it."""
    return str(fields["id"] if source == "hotline" else fields[WITNESS_FIELD[source]])


def _link_quality(report: Report, first: Report) -> str:
    if report.said_at is None or first.said_at is None:
        return "none"
    return "good" if metres(*report.said_at, *first.said_at) <= GOOD_LINK_M else "far"
