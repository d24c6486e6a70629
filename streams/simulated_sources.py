"""Callers, grid workers and cameras: what each would notice of an event, and how it errs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from geo.datum import from_wgs84, to_wgs84
from streams.error_model import (
    ErrorModel,
    HotlineModel,
    MachineModel,
    PatrolModel,
    PeopleModel,
    SourceModel,
    VideoModel,
)
from streams.pack import Category, Device
from streams.simulated_addresses import SpokenAddresses
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity, moved, within
from streams.simulated_events import Event, Span
from streams.simulated_messages import Report
from streams.simulated_texts import Texts

_TRIES = 50
# No operator gives numbers of 154-00 to callers.
_CALLER = "15400{:06d}"
_REMEMBERED_CALLERS = 500


class Source:
    """What all sources share: labels, coordinates, delays.  What they say is left in `said`."""

    name: str
    model: SourceModel

    def __init__(self, city: SimulatedCity, chance: Chance, span: Span) -> None:
        self.city = city
        self.chance = chance
        self.span = span
        self.said: list[Report] = []
        self._entry_crs = city.pack.sources[self.name].crs
        self._labels = city.labels[self.name]
        self._platforms = {name: platform.share for name, platform in self.model.platforms.items() if platform.share}

    @property
    def alarms_a_scene(self) -> float:
        """How often, in the mean, it raises one false alarm."""
        return 1.0

    @property
    def false_categories(self) -> list[Category]:
        """Of what it can raise a false alarm."""
        return [self.city.by_code[code] for code in self._labels if self.city.by_code[code].event]

    def can_tell(self, event: Event) -> bool:
        """Whether it has a word for the event."""
        return event.category.code in self._labels

    def label(self, category: Category) -> tuple[str, str | None]:
        """The label that it gives a category, and the kind of error if it is the wrong one."""
        code, error = category.code, None
        chance = self.chance.between(0, 1)
        if chance < self.model.mislabelled:
            neighbours = [c for c in self.city.in_group[category.group] if c != code and c in self._labels]
            if neighbours:
                code, error = self.chance.pick(neighbours), "mislabelled"
        elif chance < self.model.mislabelled + self.model.mislabelled_far:
            others = [c.code for c in self.false_categories if c.group != category.group]
            if others:
                code, error = self.chance.pick(others), "mislabelled_far"
        return self.chance.pick(self._labels[code]), error

    def coordinates(
        self, lon: float, lat: float, accuracy_m: tuple[float, float]
    ) -> tuple[dict[str, Any], tuple[float, float], str | None]:
        """Fields that say roughly where, where they really lie in WGS-84, and the kind of error if it is one."""
        model = self.model
        declared = self.chance.weighted(model.datums)
        crs = self._entry_crs if declared == "default" else declared
        undeclared = self.chance.happens(model.datum_undeclared)
        sigma_m = self.chance.small_between(*accuracy_m)
        told = self.chance.happens(model.accuracy_told)
        for attempt in range(_TRIES):
            # The first try that stays in the city; an address of this city is never geocoded into the next.
            near = moved(lon, lat, *self.chance.offset(sigma_m)) if attempt < _TRIES - 1 else (lon, lat)
            written_in = ("gcj02" if crs == "bd09" else "bd09") if undeclared else crs
            x, y = (round(float(value), 7) for value in from_wgs84(*near, written_in))
            back_lon, back_lat = to_wgs84(x, y, crs)
            said_at = (float(back_lon), float(back_lat))
            if self.city.contains(*said_at):
                break
            undeclared = undeclared and attempt < _TRIES // 2
        fields: dict[str, Any] = {"lon": x, "lat": y}
        if declared != "default":
            fields["crs"] = declared
        if told:
            fields["accuracy_m"] = round(sigma_m, 1)
        return fields, said_at, "datum_undeclared" if undeclared else None

    def platform(self) -> str | None:
        """Which of its platforms carries something, None for the city's own."""
        if not self._platforms:
            return None
        own = 1 - sum(self._platforms.values())
        return self.chance.weighted({"": max(own, 0.0), **self._platforms}) or None

    def say(
        self,
        time_ms: int,
        fields: dict[str, Any],
        *,
        event: Event | None = None,
        cluster_id: str = "",
        said_at: tuple[float, float] | None = None,
        errors: Iterable[str | None] = (),
        platform: str | None = None,
        is_report: bool = True,
    ) -> Report:
        """Put a message on its way, late or twice if so it falls."""
        kinds = [error for error in errors if error is not None]
        delay_ms = self.chance.wait_ms(self.model.delay_s)
        if self.chance.happens(self.model.late):
            latest_s = self.model.late_max_s
            delay_ms += round(self.chance.between(min(600.0, latest_s), latest_s) * 1000)
            kinds.append("late")
        report = Report(
            self.name, time_ms, time_ms + delay_ms, fields, event=event, cluster_id=cluster_id, said_at=said_at,
            platform=platform, is_report=is_report, errors=tuple(kinds),
        )  # fmt: skip
        if is_report and self.chance.happens(self.model.sent_again):
            report.copies.append((report.arrives_ms + round(self.chance.between(60, 3600) * 1000), platform))
        self.said.append(report)
        return report


class _People(Source):
    """How many of them report one event."""

    model: PeopleModel

    def how_many(self, event: Event) -> int:
        model, urgent = self.model, event.category.priority == 1
        if not self.chance.happens(model.reported_urgent if urgent else model.reported):
            return 0
        return 1 + self.chance.count((model.further_urgent if urgent else model.further) * event.crowd)


class Callers(_People):
    """Citizens, and whoever writes their tickets."""

    name = "hotline"
    model: HotlineModel

    def __init__(
        self, city: SimulatedCity, model: ErrorModel, chance: Chance, span: Span, texts: Texts, *, amending: Chance
    ) -> None:
        self.model = model.hotline
        super().__init__(city, chance, span)
        self._texts = texts
        # By itself, so that whether tickets are amended changes nothing else in the city.
        self._amending = amending
        self._spoken = SpokenAddresses(city, model.hotline.spoken)
        self._known: list[str] = []

    def report(self, event: Event) -> None:
        """Whoever calls about it, does."""
        if not self.can_tell(event):
            return
        for _ in range(self.how_many(event)):
            # Most calls come early: what can be seen for long is called about in its first half.
            time_ms = event.start_ms + round((event.end_ms - event.start_ms) * self.chance.between(0, 1) ** 2)
            caller, errors = self._caller()
            self.call(event, time_ms, caller, errors)
            if self.chance.happens(self.model.same_again):
                again_ms = time_ms + self.chance.wait_ms(3600)
                if again_ms <= event.end_ms:
                    self.call(event, again_ms, caller, ("same_again",))

    def complain(self, event: Event, time_ms: int) -> None:
        """Somebody says that it is still there."""
        caller, errors = self._caller()
        self.call(event, time_ms, caller, (*errors, "not_repaired"))

    def raise_false_alarm(self, time_ms: int, cluster_id: str) -> None:
        """Somebody calls about nothing."""
        lon, lat = self.city.anywhere(self.chance)
        caller, _ = self._caller()
        category = self.chance.pick(self.false_categories)
        self._ticket(category, lon, lat, time_ms, caller, ("false_alarm",), cluster_id=cluster_id)

    def ask(self, time_ms: int) -> None:
        """Somebody asks or praises; nothing if the pack has no label for it."""
        codes = [code for code in self._labels if not self.city.by_code[code].event]
        if not codes:
            return
        category = self.city.by_code[self.chance.pick(codes)]
        fields: dict[str, Any] = {
            "category": self.chance.pick(self._labels[category.code]),
            "caller": self._caller()[0],
            "text": self._texts.question(category),
        }
        self.say(time_ms, fields, errors=("no_event",)).asked_for = category.code

    def call(self, event: Event, time_ms: int, caller: str, errors: Sequence[str]) -> None:
        """One ticket about an event."""
        self._ticket(event.category, event.lon, event.lat, time_ms, caller, errors, event=event)

    def _caller(self) -> tuple[str, tuple[str, ...]]:
        if self._known and self.chance.happens(self.model.another_thing):
            return self.chance.pick(self._known), ("another_thing",)
        caller = _CALLER.format(self.chance.whole(0, 999_999))
        if len(self._known) == _REMEMBERED_CALLERS:
            self._known.pop(0)
        self._known.append(caller)
        return caller, ()

    def label(self, category: Category) -> tuple[str, str | None]:
        """As of any source; or a label that nobody knows, where that is no dead letter."""
        fallback = self.city.pack.sources[self.name].fallback_category
        if fallback is not None and self.chance.happens(self.model.label_unknown):
            return f"待分类{self.chance.whole(0, 99):02d}", "label_unknown"
        return super().label(category)

    def _ticket(
        self,
        category: Category,
        lon: float,
        lat: float,
        time_ms: int,
        caller: str,
        errors: Sequence[str],
        *,
        event: Event | None = None,
        cluster_id: str = "",
    ) -> None:
        model, chance = self.model, self.chance
        label, mislabelled = self.label(category)
        kinds: list[str | None] = [*errors, mislabelled]
        fields: dict[str, Any] = {"category": label, "caller": caller}
        said_at: tuple[float, float] | None = None
        address, how = self._spoken.address(lon, lat, chance)
        place = chance.between(0, 1)
        if place < model.nowhere:
            kinds.append("nowhere")
        elif place < model.nowhere + model.address_only and address:
            fields["address"] = address
            kinds += ["address_only", *how]
        else:
            position, said_at, undeclared = self.coordinates(lon, lat, model.accuracy_m)
            fields.update(position)
            kinds.append(undeclared)
            if address and chance.happens(model.address_too):
                fields["address"] = address
        told = self._texts.ticket(
            category, lon, lat, None if event is None else event.number, address=fields.get("address", ""),
            phone=caller if chance.happens(model.texts.phone) else "", errors=errors,
        )  # fmt: skip
        fields["text"] = told.text
        if told.asset_id is not None:
            fields["asset_id"] = told.asset_id
        kinds += told.errors
        report = self.say(
            time_ms, fields, event=event, cluster_id=cluster_id, said_at=said_at, errors=kinds, platform=self.platform()
        )
        self._amend(report, category, is_mislabelled=mislabelled == "mislabelled")

    def _amend(self, report: Report, category: Category, *, is_mislabelled: bool) -> None:
        """Somebody completes the ticket later on, and puts its category right if only that was mistaken for another."""
        chance = self._amending
        # Sent twice, before and after, it would be amended back.
        if not chance.happens(self.model.amended) or report.copies:
            return
        report.amended_ms = report.arrives_ms + 60_000 + chance.wait_ms(3600)
        report.amendment = {"text": f"{report.fields['text']}补充:已联系来电人。"}
        if is_mislabelled:
            report.amendment["category"] = chance.pick(self._labels[category.code])


class Workers(_People):
    """Grid workers on their rounds."""

    name = "patrol"
    model: PatrolModel

    def __init__(self, city: SimulatedCity, model: ErrorModel, chance: Chance, span: Span, texts: Texts) -> None:
        self.model = model.patrol
        super().__init__(city, chance, span)
        self._texts = texts

    def report(self, event: Event) -> None:
        """Whoever walks past, files it."""
        if not self.can_tell(event):
            return
        for _ in range(self.how_many(event)):
            time_ms = self.on_duty(event.start_ms + self.chance.wait_ms(self.model.found_after_s))
            if time_ms is None or time_ms > event.end_ms:
                continue
            worker = self._worker(event.lon, event.lat)
            self._find(event.category, event.lon, event.lat, time_ms, worker, (), event=event)
            if self.chance.happens(self.model.same_again):
                again_ms = time_ms + self.chance.wait_ms(self.model.found_after_s)
                if again_ms <= event.end_ms:
                    self._find(event.category, event.lon, event.lat, again_ms, worker, ("same_again",), event=event)

    def file(self, cases: Sequence[Event]) -> None:
        """One worker files a row of things, one after the other; others seldom file what is filed."""
        if not cases or not self.can_tell(cases[0]):
            return
        filing = self._worker(cases[0].lon, cases[0].lat)
        for event in cases:
            self._find(event.category, event.lon, event.lat, event.start_ms, filing, (), event=event)
            for _ in range(self.chance.count(self.model.rounds.further)):
                time_ms = self.on_duty(event.start_ms + self.chance.wait_ms(self.model.found_after_s))
                if time_ms is not None and time_ms <= event.end_ms:
                    worker = self._worker(event.lon, event.lat)
                    self._find(event.category, event.lon, event.lat, time_ms, worker, (), event=event)

    def raise_false_alarm(self, time_ms: int, cluster_id: str) -> None:
        """A worker files nothing at all, if on duty at all."""
        on_duty_ms = self.on_duty(time_ms)
        if on_duty_ms is None:
            return
        lon, lat = self.city.anywhere(self.chance)
        category = self.chance.pick(self.false_categories)
        worker = self._worker(lon, lat)
        self._find(category, lon, lat, on_duty_ms, worker, ("false_alarm",), cluster_id=cluster_id)

    def on_duty(self, time_ms: int) -> int | None:
        """The moment itself, or one soon after the next start of duty; None if there is no duty at all."""
        begin, end = self.model.hours
        local = self.span.local(time_ms)
        if begin <= local.hour < end:
            return time_ms
        if begin >= end:
            return None
        morning = local.replace(hour=begin, minute=0, second=0, microsecond=0)
        if local.hour >= end:
            morning += timedelta(days=1)
        return round(morning.timestamp() * 1000) + self.chance.wait_ms(self.model.found_after_s)

    def _worker(self, lon: float, lat: float) -> str:
        """One of two workers of the cell that holds the grid cells here."""
        cells = self.city.cells_around(lon, lat)
        code = self.city.pack.grid.codes[cells[min(1, len(cells) - 1)]]
        return f"W{code[:48]}-{self.chance.whole(1, 2)}"

    def _find(
        self,
        category: Category,
        lon: float,
        lat: float,
        time_ms: int,
        worker: str,
        errors: Sequence[str],
        *,
        event: Event | None = None,
        cluster_id: str = "",
    ) -> None:
        label, mislabelled = self.label(category)
        position, said_at, undeclared = self.coordinates(lon, lat, self.model.accuracy_m)
        fields = {"worker_id": worker, "category": label, **position}
        told = self._texts.finding(category, lon, lat, None if event is None else event.number, errors=errors)
        if told.text:
            fields["text"] = told.text
        if told.asset_id is not None:
            fields["asset_id"] = told.asset_id
        self.say(
            time_ms,
            fields,
            event=event,
            cluster_id=cluster_id,
            said_at=said_at,
            errors=(*errors, mislabelled, undeclared, *told.errors),
            platform=self.platform(),
        )


class Machines(Source):
    """What cameras and sensors share: a reach, and platforms that they are connected to."""

    model: MachineModel

    def __init__(self, city: SimulatedCity, chance: Chance, span: Span, groups: Sequence[Sequence[Device]]) -> None:
        """Devices of one group are behind one gateway and so on one platform."""
        super().__init__(city, chance, span)
        self.platform_of: dict[str, str | None] = {}
        self.second_of: dict[str, str | None] = {}
        for group in groups:
            platform = self.platform()
            for device in group:
                self.platform_of[device.id] = platform
                if self._platforms and chance.happens(self.model.two_platforms):
                    self.second_of[device.id] = next(iter(self._platforms)) if platform is None else None

    def noticed(self, event: Event) -> list[int]:
        """When a machine within reach says so."""
        if not self.chance.happens(self.model.seen):
            return []
        return [time_ms for time_ms in self.again_and_again(event.start_ms) if time_ms <= event.end_ms]

    def again_and_again(self, start_ms: int) -> list[int]:
        """Soon after a moment, and as often again as the model lets it."""
        times = [start_ms + self.chance.wait_ms(30)]
        while len(times) <= self.model.again_most:
            times.append(times[-1] + self.chance.wait_ms(self.model.again_s) + 1000)
        return times

    def copy(self, report: Report, device: str) -> None:
        """The same once more, where the device is connected to a second platform."""
        if device in self.second_of:
            at_ms = report.arrives_ms + self.chance.wait_ms(self.model.two_platforms_s) + 1
            report.copies.append((at_ms, self.second_of[device]))


class Cameras(Machines):
    """Cameras and their analytics."""

    name = "video"
    model: VideoModel

    def __init__(self, city: SimulatedCity, model: ErrorModel, chance: Chance, span: Span) -> None:
        self.model = model.video
        super().__init__(city, chance, span, [[camera] for camera in city.cameras])

    def report(self, event: Event) -> None:
        """What the cameras within reach see of it."""
        if not self.can_tell(event):
            return
        for camera in within(self.city.cameras, event.lon, event.lat, self.model.reach_m + event.extent_m):
            for number, time_ms in enumerate(self.noticed(event)):
                errors = ("same_again",) if number else ()
                self._see(event.category, camera, time_ms, errors, self.model.confidence, event=event)

    @property
    def alarms_a_scene(self) -> float:
        """How often, in the mean, a camera takes one shadow for something."""
        return 1 + self.model.false_again * self.model.again_most

    def raise_false_alarm(self, time_ms: int, cluster_id: str) -> None:
        """A camera takes a shadow for something, perhaps again and again."""
        category, camera = self.chance.pick(self.false_categories), self.chance.pick(self.city.cameras)
        again = self.chance.happens(self.model.false_again)
        times = self.again_and_again(time_ms) if again else [time_ms]
        for number, at_ms in enumerate(times):
            errors = ("false_alarm", "same_again") if number else ("false_alarm",)
            self._see(category, camera, at_ms, errors, self.model.confidence_false, cluster_id=cluster_id)

    def _see(
        self,
        category: Category,
        camera: Device,
        time_ms: int,
        errors: Sequence[str],
        confidence: tuple[float, float],
        *,
        event: Event | None = None,
        cluster_id: str = "",
    ) -> None:
        label, mislabelled = self.label(category)
        fields: dict[str, Any] = {
            "camera_id": camera.id,
            "event_type": label,
            "confidence": round(self.chance.between(*confidence), 2),
        }
        said_at, undeclared = (camera.lon, camera.lat), None
        if event is not None and self.chance.happens(self.model.own_position):
            position, said_at, undeclared = self.coordinates(event.lon, event.lat, self.model.accuracy_m)
            fields.update(position)
        report = self.say(
            time_ms, fields, event=event, cluster_id=cluster_id, said_at=said_at,
            errors=(*errors, mislabelled, undeclared), platform=self.platform_of[camera.id],
        )  # fmt: skip
        self.copy(report, camera.id)
