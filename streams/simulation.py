"""A simulated stretch of a city's time with known truth: what happens, and what each of the four sources says of it.

First what happens is drawn (`streams.simulated_events`: where, what, how long it can be seen; rain over a part of the
city), then every source says of it what it would notice, with its own errors (`streams.simulated_sources`,
`streams.simulated_sensors`; the figures are data, `streams.error_model`), then the messages are given ids, broken,
batched by gateways and put in order of arrival (`streams.simulated_wire`).  One generator feeds all of it, in one fixed
order, and one of its own what people say in their own words (`streams.simulated_texts`), so the same seed gives the
same bytes, and other words change nothing but words.

The truth names every report once.  A *cluster* is a true event.  A false alarm is a cluster of its own, for it must not
be joined to anything but what repeats it: a camera that takes one shadow for something again and again, an alarm that
flaps with nothing there, a gauge that trembles or shows another unit for some hours, is one cluster.  A consultation is
no event and has none.  A reading is a report where it completes a rule of the pack, by the contract's words
(`streams.simulated_rules`); its cluster is what lifts the water, or whatever the sensor measures, at that moment.  What
a device says through a second platform is the same report again.  Broken messages, all other readings and cleared
alarms are no reports and do not stand in it.

Nobody acts in a simulation as drawn here; `streams.simulated_dispatch` plays one with dispatch centres that do.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from streams import simulated_rounds as rounds
from streams.error_model import ErrorModel
from streams.messages import SOURCES
from streams.pack import CityPack
from streams.recording import RecordedMessage
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity
from streams.simulated_events import Event, Sites, Span, Storm, plan
from streams.simulated_messages import Report
from streams.simulated_sensors import Sensors
from streams.simulated_sources import Callers, Cameras, Workers
from streams.simulated_texts import Texts
from streams.simulated_wire import GOOD_LINK_M, Batch, Sent, TruthRow, Wire

__all__ = ["GOOD_LINK_M", "MAX_EVENTS", "TRUTH_COLUMNS", "Simulation", "TruthRow", "World", "simulate", "truth_csv"]

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
MAX_EVENTS = 1_000_000
"""All messages of a simulation are held at once, so that gateways can batch and broken ones can be mixed in."""


@dataclass(slots=True)
class Simulation:
    """A simulated stretch of time."""

    messages: list[RecordedMessage] = field(default_factory=list)
    """In order of arrival, with timestamps and offsets."""
    sent: Sent = field(default_factory=Sent)
    """What is true of them, and how a replay must count them."""
    events: int = 0
    """What happened, reported or not."""
    events_reported: int = 0
    storms: list[Storm] = field(default_factory=list)

    @property
    def truth(self) -> list[TruthRow]:
        """In order of arrival, one row a report."""
        return self.sent.truth

    @property
    def elements(self) -> Counter[str]:
        """Elements of each source, as a replay of the recording counts them."""
        return self.sent.elements

    @property
    def reports(self) -> Counter[str]:
        """Distinct reports of each source, as in the truth."""
        return self.sent.reports


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

    Memory and time grow with the messages: about 3 kB and 0.1 ms each.

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
    world = World(pack, model, seed=seed, start=start, hours=hours, rate=rate)
    messages = [world.wire.send(batch) for batch in world.draw(advance or (lambda _: None))]
    return world.result([message for message in messages if message is not None])


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


class World:
    """The city of one simulation, its sources, and the wire that their messages go over.

    Parameters and errors are those of `simulate`.
    """

    def __init__(
        self, pack: CityPack, model: ErrorModel, *, seed: int, start: datetime, hours: float, rate: float = 1.0
    ) -> None:
        offset = start.utcoffset()
        if offset is None:
            raise ValueError("start needs an offset, as in 2026-06-01T00:00:00+08:00")
        if not (hours > 0 and rate > 0 and math.isfinite(hours) and math.isfinite(rate)):
            raise ValueError("hours and rate must be greater than 0")
        in_rows = model.patrol.rounds.per_day * sum(model.patrol.rounds.cases) / 2
        expected = (model.events.per_day + in_rows) * rate * hours / 24
        if expected > MAX_EVENTS:
            raise ValueError(f"{expected:,.0f} events are more than {MAX_EVENTS:,}; take fewer hours or a smaller rate")
        if not any(category.event for category in pack.categories):
            raise ValueError("the pack's catalogue has no category with event = true")
        start_ms = round(start.timestamp() * 1000)
        self.span = Span(start_ms, start_ms + round(hours * 3_600_000), timezone(offset or timedelta()), pack.holidays)
        self.city = SimulatedCity(pack, model.iot.senses)
        self.chance = Chance(seed)
        self._model = model
        self._rate = rate
        self._planned, self._storms = plan(self.city, model, self.chance, self.span, rate)
        texts = Texts(self.city, model, seed)
        self.callers = Callers(self.city, model, self.chance, self.span, texts, amending=Chance(seed, 1))
        self.workers = Workers(self.city, model, self.chance, self.span, texts)
        self.cameras = Cameras(self.city, model, self.chance, self.span)
        self.sensors = Sensors(self.city, model, self.chance, self.span, self._storms, rate)
        self._sources = (self.callers, self.workers, self.cameras, self.sensors)
        self.wire = Wire(pack, model, self.chance, self.span, self.sensors.gateways)
        self.events = 0

    def draw(self, advance: Callable[[int], None]) -> list[Batch]:
        """All that is said of what happens, in order of sending."""
        sites = Sites(self.city, self._model, self.chance)
        self.sensors.fail(self.wire.new_false_alarm)
        for planned in self._planned:
            event = sites.settle(planned, self.events)
            if event is not None:
                self.events += 1
                for source in self._sources:
                    source.report(event)
            advance(1)
        for row in rounds.rows(self.city, self._model, self.chance, self.span, self._rate):
            cases = rounds.events(row, self._model, self.chance, self.events)
            self.events += len(cases)
            self.workers.file(cases)
            for event in cases:
                # Nobody calls about what nobody but a worker minds; what has eyes sees it all the same.
                self.cameras.report(event)
                self.sensors.report(event)
        self._report_nothing()
        self._ask()
        self.sensors.measure()
        return self.wire.batches(self.said())

    def happen(self, event: Event) -> None:
        """One event more, when the others are drawn; sensors' readings do not know of it."""
        self.events += 1
        for source in self._sources:
            source.report(event)

    def said(self) -> list[Report]:
        """What the sources have said since it was last asked."""
        said: list[Report] = []
        for source in self._sources:
            said += source.said
            source.said.clear()
        return said

    def result(self, messages: list[RecordedMessage]) -> Simulation:
        """What became of it, when ``messages`` were sent."""
        return Simulation(messages, self.wire.sent, self.events, self.wire.events_reported, self._storms)

    def _report_nothing(self) -> None:
        """False alarms of each source, as many as its share of them asks for."""
        hours = self._model.events.hours
        for source in self._sources:
            if not source.false_categories:
                continue
            share = source.model.false_alarms
            reports = sum(report.is_report for report in source.said)
            scenes = reports * share / (1 - share) / source.alarms_a_scene
            for time_ms in self.span.times(self.chance, scenes / self.span.days, hours):
                source.raise_false_alarm(time_ms, self.wire.new_false_alarm())

    def _ask(self) -> None:
        """Tickets that ask or praise."""
        share = self._model.hotline.no_event
        tickets = len(self.callers.said) * share / (1 - share)
        for time_ms in self.span.times(self.chance, tickets / self.span.days, self._model.events.hours):
            self.callers.ask(time_ms)


assert set(SOURCES) == {"hotline", "patrol", "video", "iot"}, "the world has each source"
